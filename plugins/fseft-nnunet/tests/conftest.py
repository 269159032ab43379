"""A tiny dataset, an empty workspace, and a cache of models of one's own."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fseft.registration import Registration
from fseft.registry import registry
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels, write_volume
from fseft.workspace import Workspace

SHAPE = (32, 32, 32)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "models"))
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def blobs(tmp_path_factory):
    """An nnU-Net dataset of two scans with a bright block."""
    folder = tmp_path_factory.mktemp("data") / "blobs"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    declared = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "left kidney": 1},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(declared))
    geometry = Geometry(SHAPE, np.diag([1.5, 1.5, 1.5, 1]))
    for case in ("a", "b"):
        image = np.random.default_rng(ord(case)).normal(0, 10, (1, *SHAPE)).astype(np.int16)
        label = np.zeros(SHAPE, np.uint8)
        label[8:20, 8:20, 8:20] = 1
        image[0][label == 1] += 200
        image[0, 0] = -1000
        write_volume(folder / "imagesTr" / f"{case}_0000.nii.gz", image, geometry)
        write_labels(folder / "labelsTr" / f"{case}.nii.gz", label, geometry)
    return folder


@pytest.fixture
def narrow(monkeypatch):
    """Let an entry be of small width, in all else as it is."""

    def change(name, patch_size, **hparams):
        offer = registry().resolve("model", name)
        card = offer.spec.card
        contract = card.contract.model_copy(update={"patch_size": patch_size})
        small = card.model_copy(
            update={"hparams": {**card.hparams, **hparams}, "contract": contract}
        )
        monkeypatch.setitem(
            registry()._registrations,
            ("model", name),
            [Registration(replace(offer.spec, card=small), offer.source)],
        )
        return small

    return change
