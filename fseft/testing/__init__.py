"""What authors of plugins get: checks of the contract, and the toys that they run on."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("fseft.testing.checks", "fseft.testing.subject")

from fseft.testing.methods import method_checks  # noqa: E402 - after the line that makes its assertions speak
from fseft.testing.toys import TOYS, Toy  # noqa: E402

__all__ = ["TOYS", "Toy", "method_checks"]
