"""Sliding-window inference over a whole preprocessed volume."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from fseft.learn.networks.heads import SplitNetwork, is_pointwise, receptive_field_radius
from fseft.learn.training.memory_format import to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

    from fseft.schemas import Triple

SMALL = 20480
"""Channels x rows x columns up to which PyTorch uses slower code for a convolution on a CPU."""

ROWS = 32
"""Approximate number of rows of features that a head receives at once, without its margin."""


@torch.inference_mode()
def sliding_window_slabs(
    network: nn.Module,
    image: npt.NDArray[Any],
    *,
    patch_size: Triple,
    device: str = "cpu",
    overlap: float = 0.5,
    mirror_axes: Sequence[int] = (),
    windows_per_batch: int = 2,
    progress: Callable[[int, int], None] = lambda _completed, _total: None,
) -> Iterator[npt.NDArray[np.float32]]:
    """Computes the logits of a volume from overlapping windows, with Gaussian weights.

    The logits of a whole volume may not fit the memory: they are merged in slabs along the first
    axis, each as soon as no later window changes it. For a `SplitNetwork` the features are averaged
    over windows, and the head runs once per voxel instead of once per window.

    Plain networks use the same code. MONAI's `sliding_window_inference` computes the same values
    where its windows are spaced evenly (a test compares them), in the same time; merging windows
    whose channels are last takes it twice as long, and it cannot stream features to a head, so the
    slabs would remain as a second implementation.

    Args:
        network: Maps patches (B, C, i, j, k) to logits (B, classes, i, j, k); is moved to `device`
            and set to evaluation mode.
        image: Normalised intensities (C, i, j, k).
        patch_size: Window (i, j, k) in voxels. Smaller volumes are padded by their edge values, and
            the logits are cropped.
        device: Where windows are computed; the result is collected in main memory.
        overlap: Fraction of a window that the next window repeats, 0 <= overlap < 1.
        mirror_axes: Spatial axes for test-time augmentation: the outputs of each window are
            averaged over all its flips, as in nnU-Net.
        windows_per_batch: Windows per forward pass.
        progress: Called as `progress(completed, total)` before the first window and after each
            forward pass.

    Yields:
        Logits (classes, rows, j, k), float32, in order.
    """
    network = to_device(network, device).eval()
    volume = _pad_to_patch(image, patch_size)
    flips = _subsets(mirror_axes)
    windows = len(flips) * count_windows(image.shape[1:], patch_size, overlap)
    # Only a linear head may be applied to the average over flips.
    is_split = isinstance(network, SplitNetwork) and (len(flips) == 1 or is_pointwise(network.head))
    body = network.body if isinstance(network, SplitNetwork) and is_split else network
    predict = _Predictor(body, device, flips, windows, progress)
    slabs = _merged_slabs(predict, volume, patch_size, overlap, windows_per_batch)
    if isinstance(network, SplitNetwork) and is_split:
        slabs = _apply_head(slabs, network.head, device)
    remaining, columns, depths = image.shape[1:]
    for slab in slabs:
        rows = min(slab.shape[2], remaining)
        if rows:
            yield slab[0, :, :rows, :columns, :depths].numpy()
        remaining -= rows


def sliding_window_logits(
    network: nn.Module, image: npt.NDArray[Any], *, patch_size: Triple, **options: Any
) -> npt.NDArray[np.float32]:
    """Returns the logits of a whole volume at once, in one array.

    Args:
        network: As for `sliding_window_slabs`.
        image: Normalised intensities (C, i, j, k).
        patch_size: Window (i, j, k) in voxels.
        options: Other arguments of `sliding_window_slabs`.

    Returns:
        Logits (classes, i, j, k), float32.
    """
    volume: npt.NDArray[np.float32] | None = None
    first = 0
    for slab in sliding_window_slabs(network, image, patch_size=patch_size, **options):
        if volume is None:
            volume = np.empty((len(slab), *image.shape[1:]), np.float32)
        volume[:, first : first + slab.shape[1]] = slab
        first += slab.shape[1]
    assert volume is not None  # noqa: S101 - a volume has at least one slab
    return volume


def count_windows(shape: Sequence[int], patch_size: Triple, overlap: float) -> int:
    """Returns the number of windows that cover a volume.

    Args:
        shape: Of the volume (i, j, k), in voxels.
        patch_size: Of a window (i, j, k), in voxels.
        overlap: Fraction of a window that the next window repeats.

    Examples:
        >>> count_windows((128, 64, 64), (64, 64, 64), 0.5)
        3
    """
    return prod(len(starts) for starts in _window_starts(shape, patch_size, overlap))


def gaussian_weights(patch_size: Triple) -> Tensor:
    """Returns the weights of the voxels of a window, highest in its centre.

    The values are those of MONAI's `compute_importance_map`, whose module imports much more.

    Args:
        patch_size: Of a window (i, j, k), in voxels.

    Returns:
        Float32 weights (i, j, k): a Gaussian with a standard deviation of an eighth of each side,
        at least 0.001.
    """
    weights = torch.ones(())
    for side in patch_size:
        centre, deviation = (side - 1) / 2, side / 8
        distances = torch.arange(side, dtype=torch.float32) - centre
        line = torch.exp(-(distances**2) / (2 * deviation**2))
        weights = weights[..., None] * line
    smallest = float(weights.min())
    return weights.clamp_(min=max(smallest, 1e-3))


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Returns all combinations of the axes, the empty one first."""
    lengths = range(len(axes) + 1)
    return [subset for length in lengths for subset in combinations(axes, length)]


def _window_starts(shape: Sequence[int], patch_size: Triple, overlap: float) -> Iterator[list[int]]:
    """Yields the first voxels of the windows along each axis: evenly spaced, as in nnU-Net.

    The last window ends at the edge; even spacing gives all neighbours about the same overlap.
    """
    for side, patch in zip(shape, patch_size, strict=True):
        last = max(0, side - patch)
        longest_step = max(1, patch * (1 - overlap))
        steps = ceil(last / longest_step)
        width = last / steps if steps else 0
        yield [round(width * step) for step in range(steps + 1)]


def _windows(
    shape: Sequence[int], patch_size: Triple, overlap: float
) -> list[tuple[slice, slice, slice]]:
    """Returns the windows that cover a volume, the last axis fastest."""
    starts = _window_starts(shape, patch_size, overlap)
    depth, height, width = patch_size
    return [
        (slice(i, i + depth), slice(j, j + height), slice(k, k + width))
        for i, j, k in product(*starts)
    ]


def _pad_to_patch(image: npt.NDArray[Any], patch_size: Triple) -> Tensor:
    """Repeats the last voxels of (C, i, j, k) until each side has at least the size of a window."""
    volume = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    widths: list[int] = []
    for axis in (3, 2, 1):  # torch pads from the last axis on
        missing = patch_size[axis - 1] - volume.shape[axis]
        widths += [0, max(0, missing)]
    return F.pad(volume[None], widths, mode="replicate")[0]


class _Predictor:
    """Applies a network to batches of windows, and reports the progress.

    Args:
        network: Maps patches (B, C, i, j, k) to outputs (B, F, i, j, k).
        device: Where the network is.
        flips: Sets of spatial axes; outputs are averaged over these flips of each window.
        total: Number of windows, each flip counted.
        progress: Called as `progress(completed, total)`.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str,
        flips: Sequence[tuple[int, ...]],
        total: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self.network, self.device, self.flips = network, device, flips
        self.total, self.progress = total, progress
        self.completed = 0
        progress(0, total)

    def __call__(self, windows: Tensor) -> Tensor:
        """Returns the outputs in float32 and in main memory."""
        windows = windows.to(self.device)
        total = self._outputs(windows, self.flips[0])
        for axes in self.flips[1:]:
            total += self._outputs(windows, axes)
        return (total / len(self.flips) if len(self.flips) > 1 else total).cpu()

    def _outputs(self, windows: Tensor, axes: tuple[int, ...]) -> Tensor:
        dims = [2 + axis for axis in axes]
        outputs: Tensor = self.network(windows.flip(dims) if dims else windows)
        self.completed += len(windows)
        self.progress(self.completed, self.total)
        return (outputs.flip(dims) if dims else outputs).float()


@dataclass
class _WindowSums:
    """Weighted sums of the outputs of windows, in as many rows as one window has.

    Attributes:
        sums: (1, F + 1, rows, j, k): the weighted outputs, and the weights as the last channel.
        first_row: Row of the volume that the sums begin with.
    """

    sums: Tensor
    first_row: int = 0

    @classmethod
    def zeros(cls, outputs: Tensor, columns: Sequence[int]) -> _WindowSums:
        """Allocates sums for outputs (B, F, i, j, k) of windows in a volume (..., *columns).

        The memory format is that of the outputs: adding tensors of two formats takes ten times as
        long.
        """
        last = outputs.is_contiguous(memory_format=torch.channels_last_3d)
        memory_format = torch.channels_last_3d if last else torch.contiguous_format
        shape = (1, outputs.shape[1] + 1, outputs.shape[2], *columns)
        return cls(torch.empty(shape, memory_format=memory_format).zero_())

    def add(self, output: Tensor, weight: Tensor, columns: tuple[slice, slice]) -> None:
        """Adds the output (F, i, j, k) of a window that begins at `first_row`."""
        region = self.sums[0][:, :, columns[0], columns[1]]
        region[:-1].addcmul_(output, weight)
        region[-1] += weight

    def averages(self, rows: int) -> Iterator[Tensor]:
        """Yields the averages of the first rows, in pieces."""
        final = self.sums[:, :, :rows]
        for piece in _pieces(final):
            outputs = piece[:, :-1]
            weights = piece[:, -1:]
            yield outputs / weights

    def advance(self, rows: int) -> None:
        """Drops the first rows, in place, and append rows of zeros."""
        length = self.sums.shape[2]
        for begin in range(rows, length, rows):
            end = min(begin + rows, length)
            self.sums[:, :, begin - rows : end - rows] = self.sums[:, :, begin:end]
        self.sums[:, :, length - rows :] = 0
        self.first_row += rows


def _pieces(values: Tensor) -> Sequence[Tensor]:
    """Splits (1, F, rows, j, k) into views of about `ROWS` rows, none of them `SMALL`."""
    rows = values.shape[2]
    size = values[:, :, :, :, 0].numel()
    by_rows = ceil(rows / ROWS)
    by_size = size // (SMALL + 1)
    pieces = max(1, min(by_rows, by_size))
    return values.tensor_split(pieces, dim=2)


def _merged_slabs(
    predict: Callable[[Tensor], Tensor],
    volume: Tensor,
    patch_size: Triple,
    overlap: float,
    windows_per_batch: int,
) -> Iterator[Tensor]:
    """Yields the merged outputs for a volume (C, i, j, k), as soon as no later window changes them.

    Yields:
        Slabs (1, F, rows, j, k) along the first axis, in order.
    """
    if volume.shape[1:] == tuple(patch_size):  # one window, without a copy
        yield from _pieces(predict(volume[None]))
        return
    weight = gaussian_weights(patch_size)
    windows = _windows(volume.shape[1:], patch_size, overlap)
    merged: _WindowSums | None = None
    for first in range(0, len(windows), windows_per_batch):
        batch = windows[first : first + windows_per_batch]
        outputs = predict(torch.stack([volume[(slice(None), *window)] for window in batch]))
        if merged is None:
            merged = _WindowSums.zeros(outputs, volume.shape[2:])
        for (rows, *columns), output in zip(batch, outputs, strict=True):
            if final := rows.start - merged.first_row:
                yield from merged.averages(final)
                merged.advance(final)
            merged.add(output, weight, (columns[0], columns[1]))
    assert merged is not None  # noqa: S101 - a volume has at least one window
    yield from merged.averages(patch_size[0])


def _apply_head(slabs: Iterator[Tensor], head: nn.Module, device: str) -> Iterator[Tensor]:
    """Applies a head to consecutive slabs of features, each with a margin of its neighbours' rows.

    The margin is the radius of the head's receptive field. Small slabs are joined first.

    Yields:
        Logits (1, classes, rows, j, k), in order.
    """
    margin = receptive_field_radius(head)
    pending = next(slabs)
    finished = 0  # rows of `pending` whose logits have been yielded
    for slab in slabs:
        features = torch.cat([pending, slab[:, :, :margin]], dim=2)
        complete = features.shape[2] - margin
        if complete > finished and pending[:, :, finished:, :, 0].numel() > SMALL:
            yield _logits(head, features, device)[:, :, finished:complete]
            first = max(0, complete - margin)
            pending, finished = pending[:, :, first:], complete - first
        pending = torch.cat([pending, slab], dim=2)
    yield _logits(head, pending, device)[:, :, finished:]


def _logits(head: nn.Module, features: Tensor, device: str) -> Tensor:
    """Applies a head to features (1, F, i, j, k) on a device; the logits are in main memory."""
    return head(features.to(device)).float().cpu()  # type: ignore[no-any-return]
