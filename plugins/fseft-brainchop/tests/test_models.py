"""Entries, and files of TensorFlow.js: read, downloaded and refused."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fseft import api
from fseft.anatomy.vocabulary import lookup, resolve_name
from fseft.errors import FseftError
from fseft.model_zoo.download import _download_path, _remove
from fseft.testing import model_checks
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, write_volume
from fseft.workspace import model_cache
from fseft_brainchop.models import SPECS

from .conftest import REAL_WEIGHTS, SMALL, write_layers_model

NAMES = [spec.name for spec in SPECS]
FOLDERS = {
    "brainchop-18": "model18cls",
    "brainchop-50": "model30chan50cls",
    "brainchop-104": "model21_104class",
    "brainchop-gwm": "model20chan3cls",
    "mindgrab": "mindgrab",
}
FREESURFER = {"Ventricle": "brain_ventricles", "Cerebellum": "cerebellum_cortex"}
"""Classes of `brainchop-50` whose names do not say what they are."""


@pytest.mark.parametrize("check", [check for name in NAMES for check in model_checks(name)])
def test_an_entry_keeps_the_contract(check):
    check()


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_classes_are_structures_of_the_vocabulary(spec):
    assert [name for name in spec.card.classes if lookup(name) != name] == []


@pytest.mark.real
@pytest.mark.parametrize("name", ["brainchop-18", "brainchop-50", "brainchop-104"])
def test_classes_are_in_the_order_of_the_owner_whose_names_are_aliases(name):
    owners = json.loads((REAL_WEIGHTS / FOLDERS[name] / "labels.json").read_text())
    owned = [owners[str(index)] for index in range(1, len(owners))]
    words = [FREESURFER.get(label, label) if "50" in name else label for label in owned]
    words = [
        word.partition(" / ")[0] if "CC_" not in word or "/" not in word else "CC" for word in words
    ]
    assert [resolve_name(word) for word in words] == list(api.get_model(name).card.classes)


@pytest.mark.real
@pytest.mark.parametrize("name", NAMES)
def test_the_public_files_are_read_without_tensorflow(name, store):
    imported = api.import_model(name, REAL_WEIGHTS / FOLDERS[name] / "model.json", store)
    report = imported.report
    assert (report.unused, report.missing, report.ignored) == ({}, {}, {})
    assert report.parameters == imported.card.parameters
    api.verify_model(name, store)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_the_network_computes_what_the_file_describes(name, small, store, tmp_path):
    card = small(name, tmp_path / "files").card
    kernels = write_layers_model(tmp_path / "files", card)
    api.import_model(name, tmp_path / "files" / "model.json", store)
    network = api.load_model(name, workspace=store)
    image = torch.randn(1, 1, 12, 13, 14, generator=torch.Generator().manual_seed(0))
    has_norm = card.hparams["norm"] == "instance"
    act = getattr(F, card.hparams["activation"])
    x, values = image, iter(torch.from_numpy(kernel) for kernel in kernels)
    for dilation in SMALL["dilations"]:
        kernel = next(values).permute(4, 3, 0, 1, 2)
        bias = None if has_norm else next(values)
        x = F.conv3d(x, kernel, bias, padding=dilation, dilation=dilation)
        x = act(F.instance_norm(x) if has_norm else x)
    expected = F.conv3d(x, next(values).permute(4, 3, 0, 1, 2), next(values))
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def hosted(small, store, tmp_path, monkeypatch):
    """The model `brainchop-18` at small width, on loopback."""
    monkeypatch.setenv("FSEFT_ALLOW_LOOPBACK_HTTP", "1")
    handler = partial(Quiet, directory=str(tmp_path / "files"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    small("brainchop-18", tmp_path / "files", f"http://127.0.0.1:{server.server_port}/model.json")
    yield tmp_path / "files"
    server.shutdown()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Be silent."""


def test_two_commands_from_nothing_to_a_label_map(hosted, store, tmp_path):
    pulled = api.pull_model("brainchop-18", store)
    assert pulled.is_new
    assert list((model_cache() / "downloads").iterdir()) == []
    image = np.random.default_rng(0).integers(0, 200, (1, 20, 22, 24), np.uint8)
    scan = tmp_path / "t1.nii.gz"
    write_volume(scan, image, Geometry((20, 22, 24), np.diag([1.0, 1.0, 1.0, 1.0])))
    result = api.predict(scan, output=tmp_path / "out", model="brainchop-18", workspace=store)
    assert result.segmented == ["t1"]
    labels = read_labels(tmp_path / "out" / "t1.nii.gz")
    found = np.unique(labels.array)
    assert len(found) > 2
    assert found.max() <= 17
    index = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert index["labels"]["hippocampus"] == 14
    again = api.predict(scan, output=tmp_path / "out", model="brainchop-18", workspace=store)
    assert again.skipped == ["t1"]
    assert not api.pull_model("brainchop-18", store).is_new


def test_a_changed_file_of_weights_is_refused_and_not_kept(hosted, store):
    content = (hosted / "model.bin").read_bytes()
    (hosted / "model.bin").write_bytes(content[:-1] + b"\1")
    with pytest.raises(FseftError, match="has the sha256"):
        api.pull_model("brainchop-18", store)
    assert list((model_cache() / "downloads").iterdir()) == []


def test_a_file_of_somebody_else_among_the_downloads_stays(store):
    checkpoint = SPECS[0].checkpoint
    folder = _download_path(checkpoint, "brainchop-18").parent
    other = folder / "notes.txt"
    folder.mkdir(parents=True)
    other.touch()
    _remove(folder / checkpoint.file, checkpoint)
    assert other.exists()
    other.unlink()
    _remove(folder / checkpoint.file, checkpoint)
    assert not folder.exists()


def test_a_file_without_its_weights_is_refused(hosted, store):
    (hosted / "model.bin").unlink()
    with pytest.raises(FseftError, match=r"model\.bin: is missing"):
        api.import_model("brainchop-18", hosted / "model.json", store)


def test_weights_of_another_length_are_refused(hosted, store):
    content = (hosted / "model.bin").read_bytes()
    (hosted / "model.bin").write_bytes(content[:-4])
    with pytest.raises(FseftError, match=r"model\.json describes"):
        api.import_model("brainchop-18", hosted / "model.json", store)


def test_the_network_of_another_model_is_refused(hosted, store):
    with pytest.raises(FseftError, match="has a network of"):
        api.import_model("brainchop-104", hosted / "model.json", store)


def test_another_kind_of_network_is_refused(hosted, store):
    text = (hosted / "model.json").read_text()
    (hosted / "model.json").write_text(text.replace('"InputLayer"', '"MaxPooling3D"'))
    with pytest.raises(FseftError, match="'MaxPooling3D', which a MeshNet lacks"):
        api.import_model("brainchop-18", hosted / "model.json", store)
