"""Sliding-window inference over a whole prepared volume."""

from __future__ import annotations

from itertools import combinations
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fseft.learn.layout import on_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

    from fseft.documents import Triple


@torch.inference_mode()
def segment(
    network: nn.Module,
    image: npt.NDArray[Any],
    *,
    patch_size: Triple,
    device: str = "cpu",
    overlap: float = 0.5,
    mirror_axes: Sequence[int] = (),
    windows_per_batch: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> npt.NDArray[np.float32]:
    """Logits (classes, i, j, k) of a volume (C, i, j, k), overlapping windows weighted by a Gaussian.

    Args:
        network: Segments patches; is put into eval mode.
        image: Normalised input, float32.
        patch_size: Window (i, j, k); smaller volumes are padded and cut back.
        device: Where windows are computed; the result is collected in main memory.
        overlap: Share of a window that the next one repeats.
        mirror_axes: Test-time augmentation: average over all flips of these spatial axes.
        windows_per_batch: Windows per forward pass.
        progress: Told how many windows are done, of how many, before the first and after each pass.
    """
    from monai.inferers import sliding_window_inference

    network = on_device(network, device).eval()
    batch = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None]
    flips = [axes for length in range(len(mirror_axes) + 1) for axes in combinations(mirror_axes, length)]
    count = len(flips) * count_windows(image.shape[1:], patch_size, overlap)
    done = 0
    progress(0, count)

    def counted(windows: Tensor) -> Tensor:
        nonlocal done
        logits: Tensor = network(windows)
        done += len(windows)
        progress(done, count)
        return logits

    total: Tensor | None = None
    for axes in flips:
        dims = [2 + axis for axis in axes]
        logits = sliding_window_inference(
            torch.flip(batch, dims),
            patch_size,
            windows_per_batch,
            counted,
            overlap=overlap,
            mode="gaussian",
            sw_device=torch.device(device),
            device=torch.device("cpu"),
            padding_mode="replicate",
        )
        total = logits if total is None else total.add_(torch.flip(logits, dims))
    assert total is not None  # noqa: S101 - the first flip is none at all
    return total.div_(len(flips))[0].float().numpy()


def count_windows(shape: Sequence[int], patch_size: Triple, overlap: float) -> int:
    """How many windows cover a volume (i, j, k): each axis is walked in steps of the part that does not overlap."""
    steps = [max(1, int(patch * (1 - overlap))) for patch in patch_size]
    sides = zip(shape, patch_size, steps, strict=True)
    return prod(1 + ceil(max(0, side - patch) / step) for side, patch, step in sides)
