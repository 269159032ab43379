"""Mutated files: a plausible result or one line that names the file, and no warning of Python."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fseft.dataset_json import read_declaration
from fseft.errors import FseftError
from fseft.evaluation.matching import match_predictions, read_references
from fseft.experiment.checkpoints import load_checkpoint
from fseft.inference.index import read_index
from fseft.model_zoo.adapter_file import HEADER
from fseft.model_zoo.download import _read_pins
from fseft.model_zoo.weights_io import read_weights
from fseft.planning.dataset_reading import read_dataset
from fseft.schemas import Fingerprint, ModelCard, Plan, Run, TrainingSet
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, read_volume, write_labels, write_volume
from fseft.volume.measurements import read_measurement
from fseft.workspace import read_document
from tests.fuzz.mutators import mutated_bytes, mutated_json
from tests.sample_data import a_scan, adapt, load_adapter
from tests.volume.test_dicom import write_series

pytestmark = pytest.mark.full

MAX_VOXELS = 1 << 24
"""No mutant may make the reader return, or allocate, more than its file can hold."""


def outcome(read, path):
    """The result of a function of a path; None if it refuses the file in a line."""
    try:
        return read(path)
    except FseftError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 2000
        assert message.endswith((".", "?", "!", ")")), message
        return None


def plausible(volume):
    array = volume.array
    assert array.ndim == 4
    assert 0 < array.size < MAX_VOXELS
    assert array.shape[1:] == volume.geometry.shape
    assert array.dtype.kind in "iuf"
    assert np.isfinite(array).all()
    assert np.isfinite(volume.geometry.affine).all()
    assert all(0 < side < 1e4 for side in volume.geometry.spacing_mm)


@pytest.mark.parametrize("labels", [False, True], ids=["image", "labels"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("seed", range(60))
def test_an_image_is_read_plausibly_or_refused_in_a_line(tmp_path, suffix, labels, seed):
    image, label = a_scan(shape=(16, 15, 18))
    geometry = Geometry((16, 15, 18), np.diag([1.5, 0.7, 3.0, 1.0]))
    path = tmp_path / f"scan{suffix}"
    if labels:
        write_labels(path, label, geometry)
    else:
        write_volume(path, image, geometry)
    rng = np.random.default_rng([seed, labels])
    header = {".nii": 352, ".nrrd": 400, ".mha": 300}.get(suffix, 0)
    path.write_bytes(mutated_bytes(path.read_bytes(), rng, header))
    volume = outcome(read_labels if labels else read_volume, path)
    if volume is not None:
        plausible(volume)


@pytest.mark.parametrize("seed", range(100))
def test_a_dicom_series_is_read_plausibly_or_refused_in_a_line(tmp_path, seed):
    folder = write_series(tmp_path, [0, 2, 4, 6])
    rng = np.random.default_rng(seed)
    files = sorted(folder.iterdir())
    path = files[int(rng.integers(len(files)))]
    path.write_bytes(mutated_bytes(path.read_bytes(), rng, 900))
    volume = outcome(read_volume, folder)
    if volume is not None:
        plausible(volume)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workspace with a finished run, its folder and the dataset."""
    from fseft import api
    from fseft.workspace import Workspace
    from tests.sample_data import adapt_request, write_dataset, write_model

    folder = tmp_path_factory.mktemp("finished")
    write_dataset(folder / "blobs")
    workspace = Workspace(folder / "workspace")
    write_model(workspace)
    api.preprocess(folder / "blobs", "tiny", device="cpu", workspace=workspace)
    settings = ("epochs=1", "crops_per_step=1", "early_stopping=false")
    request = adapt_request(
        folder / "blobs", "tiny", "lora", workspace, k=1, settings=settings, output=folder / "run"
    )
    adapt(request, workspace)
    return folder, workspace


DECATHLON = {
    "name": "x",
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "tumour"},
    "training": [{"image": "./imagesTr/a_0000.nii.gz", "label": "./labelsTr/a.nii.gz"}],
}


def documents(folder, workspace):
    """Name -> text of a document, where it is, and the function that reads it."""
    plans = workspace.root / "fingerprints" / "blobs"
    index = {
        "labels": {"liver": 1},
        "adapters": {"ab": "x"},
        "cases": {"a": {"key": "k", "adapter": "ab", "others": [], "seen": False}},
    }
    sample = {
        "fingerprint": (next(plans.rglob("fingerprint.json")), Fingerprint),
        "plan": (folder / "run" / "plan.json", Plan),
        "run": (folder / "run" / "run.json", Run),
        "support": (folder / "run" / "support.json", TrainingSet),
        "model": (workspace.model("tiny") / "model.json", ModelCard),
    }
    found = {
        name: (path.read_text(), partial(read_document, kind=kind))
        for name, (path, kind) in sample.items()
    }
    found["predictions"] = (json.dumps(index), read_index)
    return found


NAMES = ("fingerprint", "plan", "run", "support", "model", "predictions")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(25))
def test_a_document_is_read_or_refused_with_its_file(tmp_path, finished, name, seed):
    text, read = documents(*finished)[name]
    path = tmp_path / f"{name}.json"
    rng = np.random.default_rng([seed, NAMES.index(name)])
    path.write_text(mutated_json(text, rng), errors="surrogateescape")
    document = outcome(read, path)
    if document is not None:  # what is read can be written, and is read again
        path.write_text(document.model_dump_json())
        assert read(path) == document


@pytest.mark.parametrize("form", ["nnunet", "decathlon"])
@pytest.mark.parametrize("seed", range(60))
def test_a_dataset_json_is_read_or_refused_in_a_line(tmp_path, finished, form, seed):
    blobs = finished[0] / "blobs"
    for item in ("imagesTr", "labelsTr"):
        (tmp_path / item).symlink_to(blobs / item)
    text = json.dumps(DECATHLON) if form == "decathlon" else (blobs / "dataset.json").read_text()
    rng = np.random.default_rng([seed, len(form)])
    path = tmp_path / "dataset.json"
    path.write_text(mutated_json(text, rng), errors="surrogateescape")
    dataset = outcome(read_dataset, tmp_path)
    if dataset is not None:
        values = list(dataset.labels.values())
        assert all(0 < value < 1 << 32 for value in values)
        assert len(set(values)) == len(values)

    def match(folder):
        labels = folder / "labelsTr"
        return match_predictions(labels, read_references(labels))

    outcome(match, tmp_path)
    outcome(read_declaration, tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_pins_are_read_or_refused_in_a_line(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path))
    text = mutated_json('{"a": "b", "c": "d"}', np.random.default_rng(seed))
    (tmp_path / "pins.json").write_text(text, errors="surrogateescape")
    outcome(lambda _: _read_pins(), tmp_path)


@pytest.mark.parametrize("seed", range(60))
def test_an_adapter_is_loaded_or_refused_in_a_line(tmp_path, finished, seed, caplog):
    folder, workspace = finished
    original = folder / "run" / "adapter.safetensors"
    path = tmp_path / "adapter.safetensors"
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        path.write_bytes(mutated_bytes(original.read_bytes(), rng, 4000))
    else:
        with safe_open(original, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata()[HEADER]
        text = mutated_json(header, rng).encode("utf-8", "replace").decode()
        save_file(tensors, path, metadata={HEADER: text})
    caplog.set_level(logging.ERROR)
    loaded = outcome(lambda path: load_adapter(path, workspace), path)
    if loaded is not None:
        network, manifest = loaded
        with torch.no_grad():
            logits = network.eval()(torch.zeros(1, len(manifest.channels), 32, 32, 32))
        assert logits.shape == (1, 1 + len(manifest.labels), 32, 32, 32)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("read", [load_checkpoint, read_weights], ids=["training", "weights"])
@pytest.mark.parametrize("seed", range(40))
def test_a_checkpoint_is_loaded_or_refused_in_a_line(tmp_path, read, seed):
    state = {"tensors": {"a": torch.ones(40)}, "method": {}, "average": [], "losses": [0.5]}
    state |= {"optimizer": {"state": {}, "param_groups": []}}
    state |= {"step": 1, "seconds": 1.0, "stopped_by": ""}
    path = tmp_path / "checkpoint.pt"
    torch.save(state, path)
    rng = np.random.default_rng(seed)
    path.write_bytes(mutated_bytes(path.read_bytes(), rng, 1200))
    outcome(read, path)


@pytest.mark.parametrize("seed", range(20))
def test_a_measurement_is_read_or_measured_again(tmp_path, finished, seed):
    files = sorted((finished[1].root / "fingerprints").rglob("*.npz"))
    path = tmp_path / "measurement.npz"
    rng = np.random.default_rng(seed)
    path.write_bytes(mutated_bytes(Path(files[0]).read_bytes(), rng))
    outcome(read_measurement, path)
