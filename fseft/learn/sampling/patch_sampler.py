"""Which patch next: foreground-aware crops from cached cases, drawn from a given generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.volume.intensity import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from fseft.schemas import Intensity, Triple
    from fseft.volume.cache import CachedCase

    Array = npt.NDArray[Any]

OUTSIDE = {"ct": -1024.0, "mr": 0.0, "other": 0.0}
"""What lies beyond the edge of the array, in stored intensities: air."""


def pad_to(image: Array, size: Triple, modality: str) -> tuple[Array, tuple[slice, ...]]:
    """Fill a volume up to the size of a crop, as crops are: what is learned and what is segmented must look alike.

    Args:
        image: (C, i, j, k), as stored.
        size: Crop (i, j, k).
        modality: Decides the value outside.

    Returns:
        The padded volume, and the slices of its last three axes that hold the old one.
    """
    missing = [max(0, wanted - side) for wanted, side in zip(size, image.shape[1:], strict=True)]
    before = [pad // 2 for pad in missing]
    widths = [(0, 0), *((b, pad - b) for b, pad in zip(before, missing, strict=True))]
    inside = tuple(slice(b, b + side) for b, side in zip(before, image.shape[1:], strict=True))
    return np.pad(image, widths, constant_values=int(OUTSIDE[modality])), inside


@dataclass(frozen=True)
class Crops:
    """A batch. `images` (B, C, i, j, k) float32, `labels` (B, 1, i, j, k) int16: 0 background, 1.. structures."""

    images: Array
    labels: Array


@dataclass(frozen=True)
class CropSource:
    """Draws crops of one size from one kind of case.

    Attributes:
        size: Crop (i, j, k) in voxels.
        intensity: How stored intensities become input, one per channel.
        modality: Decides the value outside the array.
        classes: Stored label value -> structure index 1, 2, ...; other values count as background.
        foreground: Share of the crops that are centred near a voxel of a structure.
        margin: Voxels that are read around a crop on each side, for augmentation, which leaves the crop; they may lie
            outside the volume, so that crops reach its edge.
    """

    size: Triple
    intensity: tuple[Intensity, ...]
    modality: str
    classes: Mapping[int, int]
    foreground: float = 0.5
    margin: Triple = (0, 0, 0)

    def draw(self, case: CachedCase, count: int, rng: np.random.Generator) -> Crops:
        """Draw `count` crops with their rims; the foreground ones come first, each for a structure chosen at random."""
        wanted = int(
            count * self.foreground + rng.random()
        )  # rounded by chance, so that the share holds on average
        starts = [self._start(case, rng, foreground=index < wanted) for index in range(count)]
        images, labels = zip(*(self.read(case, start) for start in starts), strict=True)
        return Crops(np.stack(images), np.stack(labels))

    def read(self, case: CachedCase, start: Sequence[int]) -> tuple[Array, Array]:
        """One crop with its margin, normalised and with structure indices."""
        first = tuple(np.subtract(start, self.margin).tolist())
        whole = tuple(np.add(self.size, np.multiply(2, self.margin)).tolist())
        image = normalise(
            case.read_image(first, whole, pad=OUTSIDE[self.modality]), self.intensity, case.meta
        )
        return image, self._structures(case.read_label(first, whole))[None]

    def around(self, case: CachedCase, index: int, rng: np.random.Generator) -> tuple[int, ...]:
        """Where a crop starts near a voxel of a structure, by its index; anywhere, where the case has none of it."""
        values = [
            value
            for value, found in self.classes.items()
            if found == index and value in case.classes
        ]
        return (
            self._around(case, int(rng.choice(values)), rng) if values else self.anywhere(case, rng)
        )

    def anywhere(self, case: CachedCase, rng: np.random.Generator) -> tuple[int, ...]:
        """Where a crop starts, every place being as likely."""
        return tuple(
            int(rng.integers(min(slack, 0), max(slack, 0) + 1)) for slack in self._slack(case)
        )

    def _start(
        self, case: CachedCase, rng: np.random.Generator, *, foreground: bool
    ) -> tuple[int, ...]:
        present = [value for value in self.classes if value in case.classes]
        if not (foreground and present):
            return self.anywhere(case, rng)
        return self._around(case, int(rng.choice(present)), rng)

    def _around(self, case: CachedCase, value: int, rng: np.random.Generator) -> tuple[int, ...]:
        places = case.locations(value)
        centre = places[rng.integers(len(places))].astype(int)
        # The voxel may lie anywhere in the middle half, so that structures are not always seen in the centre.
        jitter = rng.integers(-(np.asarray(self.size) // 4), np.asarray(self.size) // 4 + 1)
        start = centre - np.asarray(self.size) // 2 + jitter
        slack = self._slack(case)
        return tuple(int(v) for v in np.clip(start, np.minimum(slack, 0), np.maximum(slack, 0)))

    def _slack(self, case: CachedCase) -> Array:
        return np.asarray(case.shape) - self.size

    def _structures(self, stored: Array) -> Array:
        table = np.zeros(max(int(stored.max(initial=0)), *self.classes, 0) + 1, np.int16)
        for value, index in self.classes.items():
            table[value] = index
        return table[stored]
