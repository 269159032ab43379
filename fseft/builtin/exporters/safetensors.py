"""The exporter `safetensors`: weights of the merged network, and how to build it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fseft.plugin import ExporterSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from fseft.schemas import Manifest

SPEC = ExporterSpec(
    name="safetensors",
    factory="fseft.builtin.exporters.safetensors:export",
    summary="weights of the merged network, and its architecture",
)


def export(network: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Writes `network.safetensors` and `network.json`.

    Args:
        network: The merged network in evaluation mode.
        manifest: Manifest of the adapter.
        folder: An empty folder.
    """
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    (folder / "network.safetensors").write_bytes(save(tensors))
    description = {
        "architecture": manifest.architecture,
        "hparams": manifest.hparams,
        "in_channels": manifest.preprocessing.network_channels,
        "out_channels": 1 + len(manifest.labels),
    }
    (folder / "network.json").write_text(json.dumps(description, indent=2) + "\n", "utf-8")
