"""Comparison of an exported network with the original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.errors import FseftError

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.schemas import Manifest

_MAX_DIFFERENCE = 1e-3  # of the standard deviation of the logits
_MAX_CHANGED_VOXELS = 1e-3


def sample_input(manifest: Manifest, seed: int = 0) -> Tensor:
    """Returns a random image of the size of a patch.

    Args:
        manifest: Provides the channels and the patch size.
        seed: Seed of the values, which have a standard normal distribution.

    Returns:
        (1, C, i, j, k) float32.
    """
    import torch

    shape = (1, manifest.preprocessing.network_channels, *manifest.preprocessing.patch_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def require_equal_outputs(original: Tensor, exported: Tensor) -> None:
    """Checks that two networks return the same logits and labels.

    Args:
        original: Logits (B, classes, i, j, k).
        exported: Logits of the exported network for the same image, of the same shape.

    Raises:
        FseftError: The logits differ by more than 0.1 % of their standard deviation, or more than
            0.1 % of the voxels have another label.
    """
    if original.shape != exported.shape:
        cause = f"outputs have shape {tuple(exported.shape)} instead of {tuple(original.shape)}"
        raise _disagreement(cause)
    difference = float((original - exported).abs().max() / original.std())
    changed = float((original.argmax(1) != exported.argmax(1)).float().mean())
    if not difference <= _MAX_DIFFERENCE or changed > _MAX_CHANGED_VOXELS:
        cause = f"logits differ by {difference:.2g} standard deviations, labels of {changed:.2%}"
        raise _disagreement(cause)


def _disagreement(cause: str) -> FseftError:
    return FseftError(
        f"the exported network computes other outputs ({cause})", hint="Use another format."
    )
