"""The built-in file formats of adapted networks."""

from __future__ import annotations

import json

import pytest
import torch

from fseft.registry import registry
from fseft.testing import exporter_checks, tiny_adapter

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
    "check", [*exporter_checks("safetensors"), *exporter_checks("torchscript")]
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
