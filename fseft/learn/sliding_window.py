"""Sliding-window inference over a whole prepared volume."""

from __future__ import annotations

from itertools import combinations
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from fseft.learn.networks.heads import SplitNetwork, receptive_field_radius
from fseft.learn.training.memory_format import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

    from fseft.schemas import Triple

SMALL = 20480
"""PyTorch computes convolutions of one volume with so few channels x rows x columns by slower code, on a CPU."""

ROWS = 32
"""Of the features that a head gets at once, about; each piece is seen with the head's reach around it."""


@torch.inference_mode()
def sliding_window_logits(
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

    Of a `SplitNetwork`, the features are blended, and the head runs once on each voxel instead of in every window.

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
    network = to_device(network, device).eval()
    body, head = (
        (network.body, network.head) if isinstance(network, SplitNetwork) else (network, None)
    )
    volume = _filled_up(torch.from_numpy(np.ascontiguousarray(image, np.float32)), patch_size)
    flips = [
        axes for length in range(len(mirror_axes) + 1) for axes in combinations(mirror_axes, length)
    ]
    count = len(flips) * count_windows(image.shape[1:], patch_size, overlap)
    done = 0
    progress(0, count)

    def run(windows: Tensor) -> Tensor:
        nonlocal done
        found: Tensor = body(windows.to(device))
        done += len(windows)
        progress(done, count)
        return found.float().cpu()

    total: Tensor | None = None
    for axes in flips:
        dims = [1 + axis for axis in axes]
        slabs = _blended(run, torch.flip(volume, dims), patch_size, overlap, windows_per_batch)
        logits = _stacked(slabs if head is None else _headed(slabs, head, device), volume.shape[1])
        total = logits if total is None else total.add_(torch.flip(logits, dims))
    assert total is not None  # noqa: S101 - the first flip is none at all
    inside = tuple(slice(side) for side in image.shape[1:])
    return total.div_(len(flips))[(slice(None), *inside)].numpy()


def _blended(
    run: Callable[[Tensor], Tensor],
    volume: Tensor,
    patch_size: Triple,
    overlap: float,
    windows_per_batch: int,
) -> Iterator[Tensor]:
    """What a network gives for a volume (C, i, j, k): slabs (1, F, rows, j, k) along the first axis, as each is done.

    Sums are held of as many rows as a window has: features are many.
    """
    from monai.data.utils import compute_importance_map, dense_patch_slices

    weight = compute_importance_map(patch_size, mode="gaussian")
    windows = dense_patch_slices(volume.shape[1:], patch_size, _steps(patch_size, overlap))
    sums: Tensor | None = (
        None  # (1, F + 1, rows, j, k) of the weighted output, and of the weights as the last channel
    )
    begin = 0  # the row of the volume that they begin with
    for first in range(0, len(windows), windows_per_batch):
        batch = windows[first : first + windows_per_batch]
        found = run(torch.stack([volume[(slice(None), *window)] for window in batch]))
        for (rows, *across), one in zip(batch, found, strict=True):
            if sums is None:
                sums = _zeros_laid_out_as(
                    found, (1, len(one) + 1, patch_size[0], *volume.shape[2:])
                )
            if done := rows.start - begin:
                yield from _means(sums[:, :, :done])
                _forget(sums, done)
                begin = rows.start
            place = sums[(0, slice(None), slice(None), *across)]
            place[:-1].addcmul_(one, weight)
            place[-1] += weight
    assert sums is not None  # noqa: S101 - there is a window
    yield from _means(sums)


def _zeros_laid_out_as(other: Tensor, shape: Sequence[int]) -> Tensor:
    """Sums of many channels are ten times as slow where one has the channels first, and the other last."""
    last = other.is_contiguous(memory_format=torch.channels_last_3d)
    layout = torch.channels_last_3d if last else torch.contiguous_format
    return torch.empty(*shape, memory_format=layout).zero_()


def _forget(sums: Tensor, rows: int) -> None:
    """Move so many rows out at the beginning, in place, and zeros in at the end."""
    length = sums.shape[2]
    for begin in range(rows, length, rows):
        end = min(begin + rows, length)
        sums[:, :, begin - rows : end - rows] = sums[:, :, begin:end]
    sums[:, :, length - rows :] = 0


def _means(sums: Tensor) -> Iterator[Tensor]:
    """Of the weighted outputs, in pieces of about `ROWS`, but none that is small."""
    count = min(ceil(sums.shape[2] / ROWS), sums[:, :, :, :, 0].numel() // (SMALL + 1))
    for piece in sums.tensor_split(max(1, count), dim=2):
        yield piece[:, :-1] / piece[:, -1:]


def _headed(slabs: Iterator[Tensor], head: nn.Module, device: str) -> Iterator[Tensor]:
    """A head on slabs of features that follow each other, each seen with as much of its neighbours as the head sees.

    It runs on several slabs at a time where they are small.
    """
    margin = receptive_field_radius(head)
    held = next(slabs)
    given = 0  # the logits of so many rows that are held were given already
    for slab in slabs:
        seen = torch.cat([held, slab[:, :, :margin]], dim=2)
        ready = seen.shape[2] - margin
        if ready > given and held[:, :, given:, :, 0].numel() > SMALL:
            yield _logits(head, seen, device)[:, :, given:ready]
            first = max(0, ready - margin)
            held, given = held[:, :, first:], ready - first
        held = torch.cat([held, slab], dim=2)
    yield _logits(head, held, device)[:, :, given:]


def _logits(head: nn.Module, features: Tensor, device: str) -> Tensor:
    """Of features (1, F, i, j, k), in main memory."""
    return head(features.to(device)).float().cpu()  # type: ignore[no-any-return]


def _stacked(slabs: Iterable[Tensor], rows: int) -> Tensor:
    """All slabs (1, C, rows, j, k), one after the other, as (C, i, j, k); never twice in memory."""
    whole: Tensor | None = None
    done = 0
    for slab in slabs:
        if whole is None:
            whole = slab.new_empty((slab.shape[1], rows, *slab.shape[3:]))
        whole[:, done : done + slab.shape[2]] = slab[0]
        done += slab.shape[2]
    assert whole is not None  # noqa: S101 - there is a slab
    return whole


def _filled_up(volume: Tensor, patch_size: Triple) -> Tensor:
    """The volume (C, i, j, k), as large as a window at least: its edge is repeated after it."""
    missing = [
        max(0, patch - side) for side, patch in zip(volume.shape[1:], patch_size, strict=True)
    ]
    widths = [width for more in reversed(missing) for width in (0, more)]
    return F.pad(volume[None], widths, mode="replicate")[0]


def count_windows(shape: Sequence[int], patch_size: Triple, overlap: float) -> int:
    """How many windows cover a volume (i, j, k): each axis is walked in steps of the part that does not overlap."""
    sides = zip(shape, patch_size, _steps(patch_size, overlap), strict=True)
    return prod(1 + ceil(max(0, side - patch) / step) for side, patch, step in sides)


def _steps(patch_size: Triple, overlap: float) -> list[int]:
    return [max(1, int(patch * (1 - overlap))) for patch in patch_size]
