"""The built-in file formats of adapted networks."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch

from fseft import api
from fseft.registry import registry
from fseft.schemas import Intensity
from fseft.testing import exporter_checks, tiny_adapter
from fseft.volume.decision import decide

EXPORTERS = ("onnx", "safetensors", "torchscript")


def exported(name, folder):
    """The network that an exporter wrote, as a function of the image."""
    if name == "torchscript":
        return torch.jit.load(folder / "network.ts")
    if name == "onnx":
        from fseft.builtin.exporters.onnx import run

        return lambda image: run(folder / "network.onnx", image)
    from safetensors.torch import load_file

    from fseft.learn.networks.backbone import build_network, get_architecture

    description = json.loads((folder / "network.json").read_text())
    architecture = get_architecture(description.pop("architecture"))
    network = build_network(architecture, seed=1, **description)
    network.load_state_dict(load_file(folder / "network.safetensors"))
    return network.eval()


@pytest.mark.parametrize(
    "check",
    [
        check
        for name in ("monai-bundle", "safetensors", "torchscript")
        for check in exporter_checks(name)
    ],
)
def test_the_contract(check):
    check()


@pytest.mark.full  # seconds for each export
@pytest.mark.parametrize("check", exporter_checks("onnx"))
def test_the_contract_of_onnx(check):
    check()


@pytest.mark.parametrize("name", EXPORTERS)
def test_an_exported_network_computes_the_logits_of_the_original(name, tmp_path):
    network, manifest = tiny_adapter()
    registry().factory("exporter", name)(network, manifest, tmp_path)
    image = torch.randn(1, 1, *manifest.preprocessing.patch_size)
    with torch.no_grad():
        torch.testing.assert_close(
            exported(name, tmp_path)(image), network(image), rtol=1e-4, atol=1e-4
        )


@pytest.mark.full  # loads MONAI's transforms
def test_a_monai_bundle_segments_as_fseft_does(blobs, workspace, tmp_path):
    from monai.bundle import run

    settings = {"k": 2, "epochs": 20, "crops_per_step": 2, "device": "cpu"}
    adapter = api.adapt(blobs, "tiny", "full", workspace=workspace, **settings)
    bundle = api.export(adapter, "monai-bundle", tmp_path / "bundle")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    api.predict(blobs / "imagesTr", adapter, ours, device="cpu")
    run(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(blobs / "imagesTr"),
        output_dir=str(theirs),
    )
    for path in sorted(ours.glob("*.nii.gz")):
        (other,) = theirs.glob(f"{path.name.partition('.')[0]}*")
        expected, labels = nibabel.load(path), nibabel.load(other)
        np.testing.assert_allclose(labels.affine, expected.affine, atol=1e-4)
        assert np.mean(np.asarray(labels.dataobj) == np.asarray(expected.dataobj)) > 0.99


@pytest.mark.full  # loads MONAI's transforms
@pytest.mark.parametrize("order", [(), ("liver", "spleen"), ("spleen", "liver")])
def test_a_monai_bundle_decides_as_fseft_does(order, tmp_path):
    from monai.bundle import ConfigParser

    network, manifest = tiny_adapter()
    manifest = manifest.model_copy(update={"writing_order": order})
    registry().factory("exporter", "monai-bundle")(network, manifest, tmp_path)
    parser = ConfigParser()
    parser.read_config(tmp_path / "configs" / "inference.json")
    decision = parser.get_parsed_content("postprocessing::transforms#1")
    logits = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = decide(logits.numpy(), manifest.writing_channels)
    np.testing.assert_array_equal(decision({"pred": logits})["pred"][0], expected)


@pytest.mark.parametrize(
    ("intensity", "changes", "value"),
    [
        ({"scheme": "window", "low": -200, "high": 300}, {}, 0.0),
        ({"scheme": "window", "low": -100, "high": 300}, {"modality": "mr"}, 0.25),
        ({"scheme": "window", "low": -200, "high": 300}, {"padding": "zero"}, 0.0),
        ({"scheme": "zscore", "region": "nonzero"}, {"modality": "mr"}, 0.0),
    ],
)
def test_a_monai_bundle_pads_with_the_value_of_the_network(intensity, changes, value, tmp_path):
    network, manifest = tiny_adapter()
    update = {"intensity": (Intensity(**intensity),), **changes}
    preprocessing = manifest.preprocessing.model_copy(update=update)
    manifest = manifest.model_copy(update={"preprocessing": preprocessing})
    registry().factory("exporter", "monai-bundle")(network, manifest, tmp_path)
    inference = json.loads((tmp_path / "configs" / "inference.json").read_text())
    transforms = {entry["_target_"]: entry for entry in inference["preprocessing"]["transforms"]}
    assert transforms["SpatialPadd"]["value"] == pytest.approx(value)
