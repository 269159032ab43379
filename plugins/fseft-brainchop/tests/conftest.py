"""A cache of models of one's own, and small files in the format of the public ones."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fseft.registration import Registration
from fseft.registry import registry
from fseft.workspace import Workspace

REAL_WEIGHTS = Path(os.environ.get("FSEFT_REAL_DATA", "data")).parent / "weights" / "brainchop"
SMALL = {"channels": 4, "dilations": [1, 2, 1]}


def pytest_collection_modifyitems(items):
    if REAL_WEIGHTS.is_dir():
        return
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason="no public weights next to FSEFT_REAL_DATA"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "models"))
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def small(monkeypatch):
    """Let an entry be of small width, in all else as it is, with the files of a folder."""

    def change(name, folder, url=""):
        offer = registry().resolve("model", name)
        card, checkpoint = offer.spec.card, offer.spec.checkpoint
        card = card.model_copy(update={"hparams": {**card.hparams, **SMALL}})
        write_layers_model(folder, card)
        digest = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
        checkpoint = replace(
            checkpoint,
            sha256=hashlib.sha256((folder / "model.json").read_bytes()).hexdigest(),
            companions=(("model.bin", digest),),
            url=url or checkpoint.url,
        )
        spec = replace(offer.spec, card=card, checkpoint=checkpoint)
        monkeypatch.setitem(
            registry()._registrations, ("model", name), [Registration(spec, offer.source)]
        )
        return spec

    return change


def write_layers_model(folder, card):
    """Writes `model.json` and `model.bin` of a MeshNet with random weights, as TensorFlow.js."""
    folder.mkdir(exist_ok=True)
    hparams, rng = card.hparams, np.random.default_rng(0)
    has_norm = hparams["norm"] == "instance"
    layers = [{"class_name": "InputLayer", "config": {"name": "input"}}]
    weights, values = [], []

    def convolution(name, kernel, dilation, width, filters, bias):
        config = {"name": name, "filters": filters, "dilation_rate": [dilation] * 3}
        layers.append({"class_name": "Conv3D", "config": config})
        shapes = {"kernel": [kernel] * 3 + [width, filters], "bias": [filters]}
        for part in ("kernel", "bias")[: 1 + bias]:
            weights.append({"name": f"{name}/{part}", "shape": shapes[part], "dtype": "float32"})
            values.append(rng.normal(0, 0.3, shapes[part]).astype("<f4"))

    width = 1
    for number, dilation in enumerate(hparams["dilations"]):
        name = f"conv3d_{number}" + "_gn" * has_norm
        convolution(name, 3, dilation, width, hparams["channels"], not has_norm)
        width = hparams["channels"]
        layers.append({"class_name": "Activation", "config": {"activation": hparams["activation"]}})
    convolution("output", 1, 1, width, 1 + len(card.classes), True)
    document = {
        "format": "layers-model",
        "modelTopology": {"model_config": {"config": {"layers": layers}}},
        "weightsManifest": [{"paths": ["model.bin"], "weights": weights}],
    }
    (folder / "model.json").write_text(json.dumps(document))
    (folder / "model.bin").write_bytes(b"".join(value.tobytes() for value in values))
    return values
