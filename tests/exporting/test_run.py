"""`fseft export`: a complete folder with network, preprocessing and model card, or one line."""

from __future__ import annotations

import json

import pytest

from fseft import api
from fseft.builtin.exporters import safetensors
from fseft.errors import FseftError
from fseft.exporting.model_card import model_card
from fseft.exporting.run import describe_interface
from fseft.testing import tiny_adapter


@pytest.fixture
def adapter(blobs, workspace):
    return api.adapt(
        blobs,
        "tiny",
        "linear-probe",
        k=2,
        epochs=1,
        crops_per_step=1,
        device="cpu",
        workspace=workspace,
    )


def test_the_folder_has_network_preprocessing_and_model_card(adapter, tmp_path):
    folder = api.export(adapter, "safetensors", tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == {
        "network.safetensors",
        "network.json",
        "preprocessing.json",
        "model_card.md",
    }
    description = json.loads((folder / "preprocessing.json").read_text())
    manifest = adapter.manifest
    assert description["input"]["spacing_mm"] == list(manifest.preprocessing.spacing_mm)
    classes = {entry["name"]: entry["label"] for entry in description["output"]["classes"]}
    assert classes == {"background": 0, **manifest.labels}


def test_the_order_of_overlapping_structures_is_described():
    _, manifest = tiny_adapter()
    assert "writing_order" not in describe_interface(manifest)["output"]
    ordered = manifest.model_copy(update={"writing_order": ("spleen", "liver")})
    output = describe_interface(ordered)["output"]
    assert output["writing_order"] == [2, 1]
    assert "last channel of writing_order" in output["decision"]


def test_the_model_card_names_data_licence_and_scores(adapter, blobs, tmp_path):
    segmented = tmp_path / "segmented"
    api.predict(blobs / "imagesTr", adapter, segmented, device="cpu")
    evaluation = api.evaluate(segmented, blobs / "labelsTr", output=segmented, workers=1)
    folder = api.export(adapter, "safetensors", tmp_path / "out", scores=segmented / "metrics.json")
    card = (folder / "model_card.md").read_text()
    for case in adapter.manifest.support:
        assert case.replace("_", "\\_") in card
    for structure, summary in evaluation.classes.items():
        assert f"| {structure} | {summary.cases} |" in card
    assert "Not evaluated" not in card


def test_scores_of_another_adapter_are_refused(adapter, tmp_path):
    scores = tmp_path / "metrics.json"
    scores.write_text('{"tolerance_mm": 2, "classes": {}, "cases": {}, "adapters": {"0": "x"}}')
    with pytest.raises(FseftError, match="another adapter"):
        api.export(adapter, "safetensors", tmp_path / "out", scores=scores)
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_replaced_only_on_request(adapter, tmp_path):
    out = api.export(adapter, "safetensors", tmp_path / "out")
    (out / "network.json").write_text("{}")
    with pytest.raises(FseftError, match="exists already"):
        api.export(adapter, "safetensors", out)
    api.export(adapter, "safetensors", out, overwrite=True)
    assert json.loads((out / "network.json").read_text())["architecture"]


def test_a_folder_that_is_not_an_export_is_never_replaced(adapter, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "notes.txt").write_text("mine")
    with pytest.raises(FseftError, match="is not an export"):
        api.export(adapter, "safetensors", tmp_path / "results", overwrite=True)
    assert (tmp_path / "results" / "notes.txt").read_text() == "mine"


def test_the_preprocessing_is_complete_also_where_it_is_the_default():
    _, manifest = tiny_adapter()
    described = describe_interface(manifest)["input"]
    for field in ("crop", "clip_first", "interpolation", "alignment", "padding"):
        assert described[field] == getattr(manifest.preprocessing, field)
    assert described["intensity"][0]["region"] == "crop"


def test_a_failed_export_leaves_nothing(adapter, tmp_path, monkeypatch):
    def fail(_network, _manifest, folder):
        (folder / "half").write_text("half")
        raise FseftError("cannot be expressed")

    monkeypatch.setattr(safetensors, "export", fail)
    with pytest.raises(FseftError, match="cannot be expressed"):
        api.export(adapter, "safetensors", tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_a_missing_package_is_named_with_its_extra(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr("fseft.registry.find_spec", lambda _name: None)
    with pytest.raises(FseftError, match=r"needs onnx.*pip install 'fseft\[export\]'"):
        api.export(adapter, "onnx", tmp_path / "out")


def test_an_unknown_format_lists_the_known_ones(adapter, tmp_path):
    with pytest.raises(FseftError, match=r"unknown exporter 'onx'.*onnx"):
        api.export(adapter, "onx", tmp_path / "out")


def test_names_in_the_model_card_are_not_read_as_markup():
    _, manifest = tiny_adapter()
    hostile = manifest.model_copy(
        update={"labels": {"<b>|liver*": 1}, "support": ("a\n# heading",), "licence": "[x](y)"}
    )
    card = model_card(hostile)
    assert "\\<b\\>\\|liver\\*" in card
    assert "\n# heading" not in card
    assert "\\[x\\](y)" in card
