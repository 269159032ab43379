"""Fixtures of all tests: no installed plugins, real volumes, and a prepared workspace."""

from __future__ import annotations

import locale
import logging
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks gain nothing from more, and processes run side by side
os.environ["FSEFT_NO_PLUGINS"] = "1"  # before the registry of this process is made
REAL_DATA = os.environ.get("FSEFT_REAL_DATA", "")

settings.register_profile("untimed", deadline=None)  # the machine may be busy
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REAL_DATA and Path(REAL_DATA).is_dir():
        return
    skip = pytest.mark.skip(reason="FSEFT_REAL_DATA names no folder")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _process_state():
    """Restores what a test may leave changed: the character set (GDCM) and the log level (`-q`)."""
    logger = logging.getLogger("fseft")
    character_set, level, handlers = (
        locale.setlocale(locale.LC_CTYPE),
        logger.level,
        logger.handlers,
    )
    yield
    locale.setlocale(locale.LC_CTYPE, character_set)
    logger.setLevel(level)
    logger.handlers = handlers


@pytest.fixture
def real_data() -> Path:
    """The folder with the real volumes."""
    return Path(REAL_DATA)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Made once: the dataset `blobs` and the workspace, planned and preprocessed."""
    from fseft import api
    from fseft.workspace import Workspace
    from tests.sample_data import write_dataset, write_model

    folder = tmp_path_factory.mktemp("made")
    write_dataset(folder / "blobs")
    store = Workspace(folder / "workspace")
    write_model(store)
    api.preprocess(folder / "blobs", "tiny", device="cpu", workspace=store)
    return folder


@pytest.fixture
def workspace(made, tmp_path):
    """A store with the model `tiny`, which nobody else touches."""
    from fseft.workspace import Workspace

    shutil.copytree(made / "workspace", tmp_path / "workspace")
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def blobs(made):
    """The dataset; not to be changed."""
    return made / "blobs"


@pytest.fixture
def request_for(blobs, workspace):
    """Make the request of a short adaptation; `settings` are added to quick ones."""
    from tests.sample_data import adapt_request

    quick = ("epochs=2", "crops_per_step=1", "early_stopping=false")

    def make(
        method="linear-probe",
        *,
        settings=(),
        model="tiny",
        dataset=blobs,
        workspace=workspace,
        **changed,
    ):
        changed = {"k": 2, "settings": (*quick, *settings), **changed}
        return adapt_request(dataset, model, method, workspace, **changed)

    return make
