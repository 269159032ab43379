"""Fixtures for the tests of a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator


def only_plugins(*names: str) -> Any:
    """A fixture for `conftest.py`: whatever is installed on the machine, the tests find fseft's own and these plugins.

    ```python
    alone = only_plugins("fseft-mine")
    ```

    It holds for all tests and for the processes that they start.

    Args:
        names: Of plugins or of their packages.
    """

    @pytest.fixture(autouse=True, scope="session")
    def alone() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FSEFT_ONLY_PLUGINS", ",".join(names))
            registry.cache_clear()
            yield
        registry.cache_clear()

    return alone
