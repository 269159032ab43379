"""The exporter `onnx`: a network for ONNX Runtime, OpenVINO and other engines."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fseft.plugin import ExporterSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.schemas import Manifest

SPEC = ExporterSpec(
    name="onnx",
    factory="fseft.builtin.exporters.onnx:export",
    summary="network for ONNX Runtime, OpenVINO and other engines",
    packages=("onnx", "onnxscript", "onnxruntime"),
    extra="fseft[export]",
)
INPUT, OUTPUT = "image", "logits"


def export(network: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Writes `network.onnx`: `image` (B, C, i, j, k) to `logits` (B, classes, i, j, k).

    The spatial size is that of a patch; the batch size is free.

    Args:
        network: The merged network in evaluation mode.
        manifest: Manifest of the adapter.
        folder: An empty folder.

    Raises:
        FseftError: ONNX Runtime computes other outputs than PyTorch.
    """
    import torch

    from fseft.builtin.exporters.shared.comparison import require_equal_outputs, sample_input

    image = sample_input(manifest)
    with torch.no_grad(), _silenced():
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        assert program is not None  # noqa: S101 - it is None without dynamo only
        program.save(str(folder / "network.onnx"))
        other = sample_input(manifest, seed=1)
        require_equal_outputs(network(other), run(folder / "network.onnx", other))


@contextmanager
def _silenced() -> Iterator[None]:
    """Hides messages on the internals of the exporter, such as on torchvision."""
    messages = logging.getLogger("torch.onnx")
    level = messages.level
    messages.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        messages.setLevel(level)


def run(path: Path, image: Tensor) -> Tensor:
    """Returns the logits that ONNX Runtime computes on the CPU.

    Args:
        path: The file `network.onnx`.
        image: (B, C, i, j, k) float32 on the CPU, of the size of a patch.

    Returns:
        Logits (B, classes, i, j, k).
    """
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run([OUTPUT], {INPUT: image.numpy()})
    return torch.from_numpy(logits)
