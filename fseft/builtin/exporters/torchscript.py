"""The exporter `torchscript`: a traced network, for PyTorch without fseft."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from fseft.plugin import ExporterSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from fseft.schemas import Manifest

SPEC = ExporterSpec(
    name="torchscript",
    factory="fseft.builtin.exporters.torchscript:export",
    summary="traced network, which torch.jit.load reads without fseft",
)


def export(network: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Writes `network.ts`, whose input has the size of a patch.

    Args:
        network: The merged network in evaluation mode.
        manifest: Manifest of the adapter.
        folder: An empty folder.

    Raises:
        FseftError: The traced network computes other outputs.
    """
    write_traced(network, manifest, folder / "network.ts")


def write_traced(network: nn.Module, manifest: Manifest, path: Path) -> None:
    """Traces a network on one image, and compares both on another.

    Args:
        network: The merged network in evaluation mode.
        manifest: Provides the channels and the patch size.
        path: File of the traced network.

    Raises:
        FseftError: As for `export`.
    """
    import torch

    from fseft.builtin.exporters.shared.comparison import require_equal_outputs, sample_input

    with torch.no_grad(), warnings.catch_warnings():
        # Checks of shapes in Python become constants, which is intended: patches have one size.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, sample_input(manifest), check_trace=False
        )
        other = sample_input(manifest, seed=1)
        require_equal_outputs(network(other), traced(other))
        traced.save(str(path))
