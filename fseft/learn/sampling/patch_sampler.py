"""Foreground-aware crops of cached cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fseft.volume.intensity import normalise
from fseft.volume.label_values import IGNORED, UNANNOTATED, translate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from fseft.schemas import ChannelMode, Intensity, Preprocessing, Triple
    from fseft.volume.cache import CachedCase

    Array = npt.NDArray[Any]

OUTSIDE = {"ct": -1024.0, "mr": 0.0, "other": 0.0}
"""Stored intensity of voxels beyond the edge of the array, by modality: air."""


def clear_outside(image: Array, inside: Sequence[slice]) -> None:
    """Sets the voxels of a normalised image (C, i, j, k) that are not inside a box to 0, in place.

    Args:
        image: The padded image (C, i, j, k).
        inside: Part of each spatial axis that a scan covers.
    """
    kept = image[(slice(None), *inside)].copy()
    image[:] = 0
    image[(slice(None), *inside)] = kept


def network_input(
    stored: Array, preprocessing: Preprocessing, case_stats: Mapping[str, Any], size: Triple
) -> tuple[Array, tuple[slice, ...]]:
    """Normalises a volume, and pads it to at least a size, as crops are padded in training.

    Args:
        stored: (C, i, j, k), as stored.
        preprocessing: Intensities and padding.
        case_stats: Statistics of the case, see `normalise`.
        size: Minimum size (i, j, k).

    Returns:
        The padded volume in float32, and the part of its spatial axes that contains the scan.
    """
    widths, inside = [(0, 0)], []
    for side, minimum in zip(stored.shape[1:], size, strict=True):
        padding = max(0, minimum - side)
        first = padding // 2
        widths.append((first, padding - first))
        inside.append(slice(first, first + side))
    padded = np.pad(stored, widths, constant_values=int(OUTSIDE[preprocessing.modality]))
    mode = preprocessing.channel_mode
    image = normalise(padded, preprocessing.intensity, case_stats, mode)
    if preprocessing.padding == "zero":
        clear_outside(image, inside)
    return image, tuple(inside)


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Attributes:
        images: (B, C, i, j, k), float32, normalised.
        labels: (B, 1, i, j, k), int16; 0 background, 1.. structures, `IGNORED` if not annotated.
        annotated: (B, structures), float32, 1 where the case of the crop annotates the structure;
            None if all do.
    """

    images: Array
    labels: Array
    annotated: Array | None = None


def class_frequencies(crops: Crops, members: Array) -> list[float]:
    """Returns the fraction of the annotated voxels in no structure, and in each structure.

    Args:
        crops: Crops of some cases; a structure counts in those that annotate it.
        members: (labels, structures), 1 where voxels with the label belong to the structure.
    """
    labels = [1 + label.ravel() for label in crops.labels]
    counts = np.stack([np.bincount(label, minlength=1 + len(members))[1:] for label in labels])
    annotated = np.ones((len(counts), members.shape[1]))
    if crops.annotated is not None:
        annotated = crops.annotated
    sizes = counts.sum(1)
    inside = counts @ members
    totals = sizes @ annotated
    voxels = (inside * annotated).sum(0)
    frequencies = voxels / np.maximum(totals, 1)
    is_outside = ~members.any(1)
    outside = counts[:, is_outside].sum() / max(sizes.sum(), 1)
    return [float(outside), *frequencies.tolist()]


@dataclass(frozen=True)
class CropSource:
    """Draws crops of a size from cases of a dataset.

    Attributes:
        size: Size of a crop (i, j, k) in voxels, without the margin.
        intensity: Normalisation of the stored intensities, one per channel.
        modality: `ct`, `mr` or `other`; determines the value of air.
        padding: Value beyond the edge of the array: `air`, or `zero` after normalisation.
        classes: Stored label value -> structure index 1, 2, ...; others count as background, except
            for `UNANNOTATED`, which becomes `IGNORED`.
        foreground_fraction: Fraction of the crops that are centred near a voxel of a structure.
        margin: Voxels read beyond each side of a crop, for augmentation. They may be outside the
            volume, so that crops reach its edge.
        annotated: Case -> 1 for each structure that it annotates, else 0; empty if all cases
            annotate all.
        channel_mode: `mean` averages the normalised channels.
    """

    size: Triple
    intensity: tuple[Intensity, ...]
    modality: str
    classes: Mapping[int, int]
    foreground_fraction: float = 0.5
    margin: Triple = (0, 0, 0)
    padding: Literal["air", "zero"] = "air"
    annotated: Mapping[str, Sequence[float]] = field(default_factory=dict)
    channel_mode: ChannelMode | None = None

    def draw(self, cases: Sequence[CachedCase], count: int, rng: np.random.Generator) -> Crops:
        """Draws `count` crops with their margins, in turn from each case.

        The foreground crops come first. Each is centred near a structure; all structures of the
        cases are equally likely, also those that few cases show.

        Args:
            cases: The cases; a foreground crop is from the next one that shows its structure.
            count: Number of crops.
            rng: Generator for all choices.
        """
        # Rounded randomly, so that the fraction holds on average.
        foreground = int(count * self.foreground_fraction + rng.random())
        shown = [value for value in self.classes if any(value in case.classes for case in cases)]
        crops, drawn = [], []
        for n in range(count):
            in_turn = [*cases[n % len(cases) :], *cases[: n % len(cases)]]
            if n < foreground and shown:
                value = int(rng.choice(shown))
                case = next(case for case in in_turn if value in case.classes)
                start = self._start_near_value(case, value, rng)
            else:
                case = in_turn[0]
                start = self.random_start(case, rng)
            crops.append(self.read(case, start))
            drawn.append(case)
        images, labels = map(np.stack, zip(*crops, strict=True))
        return Crops(images, labels, self.annotation(drawn))

    def annotation(self, cases: Sequence[CachedCase]) -> Array | None:
        """Returns the structures that cases annotate, as in `Crops`.

        Args:
            cases: The cases, of one crop each.
        """
        if not self.annotated:
            return None
        return np.array([self.annotated[case.case] for case in cases], np.float32)

    def read(self, case: CachedCase, start: Sequence[int]) -> tuple[Array, Array]:
        """Reads a crop with its margin.

        Args:
            case: The case.
            start: First voxel of the crop without its margin.

        Returns:
            The normalised image (C, i, j, k) and the structure indices (1, i, j, k).
        """
        first, size = self._box(start)
        outside = UNANNOTATED if case.partly_annotated else 0
        stored_label = case.read_label(first, size, pad=outside)
        return self.read_image(case, start), self._structures(stored_label)[None]

    def read_image(self, case: CachedCase, start: Sequence[int]) -> Array:
        """Reads the image of a crop with its margin, also of a case without a label.

        Args:
            case: The case.
            start: First voxel of the crop without its margin.

        Returns:
            The normalised image (C, i, j, k).
        """
        first, size = self._box(start)
        stored = case.read_image(first, size, pad=OUTSIDE[self.modality])
        image = normalise(stored, self.intensity, case.meta, self.channel_mode)
        if self.padding == "zero":
            clear_outside(image, _inside(first, size, case.shape))
        return image

    def _box(self, start: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns first voxel and size of a crop with its margin."""
        margins = np.multiply(2, self.margin)
        first = tuple(np.subtract(start, self.margin).tolist())
        size = tuple(np.add(self.size, margins).tolist())
        return first, size

    def start_near(
        self, case: CachedCase, structure: int | None, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Draws the first voxel of a crop near a structure; of any crop if the case lacks it.

        Args:
            case: The case.
            structure: Index of the structure, from 1; None for a crop from anywhere.
            rng: Generator for the choice.
        """
        values = [
            value
            for value, index in self.classes.items()
            if index == structure and value in case.classes
        ]
        if not values:
            return self.random_start(case, rng)
        return self._start_near_value(case, int(rng.choice(values)), rng)

    def random_start(self, case: CachedCase, rng: np.random.Generator) -> tuple[int, ...]:
        """Draws the first voxel of a crop, uniformly.

        Args:
            case: The case.
            rng: Generator for the choice.

        Returns:
            Indices (i, j, k); 0 or negative along an axis that is shorter than a crop.
        """
        slack = self._slack(case)
        start = rng.integers(np.minimum(slack, 0), np.maximum(slack, 0) + 1)
        return tuple(start.tolist())

    def _start_near_value(
        self, case: CachedCase, value: int, rng: np.random.Generator
    ) -> tuple[int, ...]:
        voxels = case.locations(value)
        voxel = voxels[rng.integers(len(voxels))].astype(int)
        # Anywhere in the central half, so that structures are not always seen in the centre.
        quarter = np.asarray(self.size) // 4
        jitter = rng.integers(-quarter, quarter + 1)
        start = voxel - np.asarray(self.size) // 2 + jitter
        slack = self._slack(case)
        clipped = np.clip(start, np.minimum(slack, 0), np.maximum(slack, 0))
        return tuple(clipped.tolist())

    def _slack(self, case: CachedCase) -> Array:
        """Returns the size of the case minus that of a crop; negative where the case is smaller."""
        return np.asarray(case.shape) - self.size

    def _structures(self, stored: Array) -> Array:
        """Returns the structure indices of stored label values."""
        return translate(stored, {UNANNOTATED: IGNORED, **self.classes}, np.int16)


def _inside(start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> list[slice]:
    """Returns the part of a crop (size) that begins at `start` of an array (shape) and is in it."""
    return [
        slice(min(max(0, -first), length), max(0, min(length, side - first)))
        for first, length, side in zip(start, size, shape, strict=True)
    ]
