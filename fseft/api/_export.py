"""Exports adapted networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fseft.inference.adapter import Adapter

if TYPE_CHECKING:
    from fseft.api._resolve import AdapterLike, WorkspaceLike


def export(
    adapter: AdapterLike,
    to: str,
    output: str | Path,
    *,
    scores: str | Path | None = None,
    overwrite: bool = False,
    workspace: WorkspaceLike = ".",
) -> Path:
    """Writes the merged network of an adapter in the format of another tool.

    The folder also has `preprocessing.json`, for programs, and `model_card.md`, for people.

    Args:
        adapter: An adapter, its file, or the folder of its run.
        to: Name of the format: "onnx", "torchscript", "safetensors", "monai-bundle", or that of a
            plugin, such as "nnunet" of fseft-nnunet.
        output: The folder to write.
        scores: A `metrics.json` of `fseft evaluate`, for the model card.
        overwrite: Replace the folder if it exists.
        workspace: Where models of the user are stored.

    Returns:
        The folder.

    Raises:
        FseftError: The format cannot express the network, a package is missing, the folder exists,
            or the scores are those of another adapter.

    Examples:
        >>> export("runs/livers/phantom-tiny/lora-k5-s0", "onnx", "liver-onnx")  # doctest: +SKIP
    """
    from fseft.exporting.run import export as run_export

    loaded = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter, workspace)
    path = None if scores is None else Path(scores)
    return run_export(loaded, to, Path(output), scores=path, overwrite=overwrite)
