"""Fixtures for all tests: no plugin of the machine, and the real volumes where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny networks gain nothing from more, and processes run side by side
os.environ["FSEFT_NO_PLUGINS"] = "1"  # before the registry of this process is made
REAL_DATA = os.environ.get("FSEFT_REAL_DATA", "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REAL_DATA and Path(REAL_DATA).is_dir():
        return
    skip = pytest.mark.skip(reason="FSEFT_REAL_DATA names no folder")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)


@pytest.fixture
def real_data() -> Path:
    """The folder with the real volumes."""
    return Path(REAL_DATA)
