"""Fixtures for the tests of a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator


def only_plugins(*names: str) -> Any:
    """Returns a fixture for `conftest.py` that hides all other installed plugins from the tests.

    ```python
    alone = only_plugins("fseft-mine")
    ```

    It applies to all tests and to the processes that they start. Built-in components stay visible.

    Args:
        names: Names of plugins or of their packages.
    """

    @pytest.fixture(autouse=True, scope="session")
    def alone() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FSEFT_ONLY_PLUGINS", ",".join(names))
            registry.cache_clear()
            yield
        registry.cache_clear()

    return alone
