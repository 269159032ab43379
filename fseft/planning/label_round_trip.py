"""Labels of training cases: their extent, and their Dice after resampling to a grid and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from fseft.volume.annotation import is_annotated, is_drawn
from fseft.volume.case_files import read_case, read_case_labels
from fseft.volume.fingerprint import permute_to_orientation
from fseft.volume.geometry import bounding_box, crop, resampled_geometry
from fseft.volume.label_values import translate
from fseft.volume.resample import resample_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fseft.planning.spacing import RoundTrip
    from fseft.schemas import Case, Dataset, Fingerprint, Millimetres
    from fseft.volume.geometry import Array, Geometry

MAX_CASES = 3
"""Cases whose labels are resampled: the differences between cases are small."""
_MARGIN = 2  # voxels around the labels


@dataclass(frozen=True, eq=False)
class _Labels:
    """The part of a label map with structures, (i, j, k), and its grid."""

    array: Array
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class LabelSample:
    """Label maps of some training cases, which are read when they are needed.

    Attributes:
        cases: The cases.
        channels: Names of the image channels.
        parts: Structure -> label values that belong to it, for the structures that count.
        orientation: Axes of spacings and sizes.
    """

    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    parts: Mapping[str, tuple[int, ...]]
    orientation: str

    @classmethod
    def of(cls, dataset: Dataset, fingerprint: Fingerprint, orientation: str) -> LabelSample | None:
        """Returns the first cases with structures, or None if there are none.

        Args:
            dataset: The dataset.
            fingerprint: Its fingerprint; cases and structures without measurements do not count.
            orientation: Axes of spacings and sizes.
        """
        measured = {case.name for case in fingerprint.cases if case.volumes_mm3}
        cases = tuple(case for case in dataset.cases if case.name in measured)[:MAX_CASES]
        if not cases:
            return None
        parts = {
            name: dataset.regions.get(name, (entry.id,))
            for name, entry in fingerprint.classes.items()
            if entry.cases
        }
        return cls(cases, tuple(dataset.channels), parts, orientation)

    @cached_property
    def _labels(self) -> list[_Labels]:
        return [_read(case, self.channels) for case in self.cases]

    @cached_property
    def round_trip(self) -> RoundTrip:
        """Function of a spacing: mean Dice of each structure after label -> grid -> label.

        It is the Dice of a perfect network.
        """

        @cache
        def round_trip(spacing_mm: Millimetres) -> Mapping[str, float]:
            return _mean_dice(self._labels, self.parts, spacing_mm, self.orientation)

        return round_trip

    @cached_property
    def foreground_mm(self) -> Millimetres:
        """Median sides of the box around all structures of a case."""
        boxes, values = [], sorted(set().union(*self.parts.values()))
        for labels in self._labels:
            box = bounding_box(np.isin(labels.array, values))
            sides = np.multiply(box.shape, labels.geometry.spacing_mm)
            axes = labels.geometry.orientation
            boxes.append(permute_to_orientation(sides.tolist(), axes, self.orientation))
        i, j, k = np.median(boxes, axis=0).tolist()
        return i, j, k


def _read(case: Case, channels: Sequence[str]) -> _Labels:
    labels = read_case_labels(case, read_case(case, channels))
    array = labels.array[0]
    return _Labels(*crop(array, labels.geometry, bounding_box(is_drawn(array), _MARGIN)))


def _mean_dice(
    cases: Sequence[_Labels],
    parts: Mapping[str, tuple[int, ...]],
    spacing_mm: Millimetres,
    orientation: str,
) -> dict[str, float]:
    """Returns the mean Dice of each structure over the cases that have it."""
    dice: dict[str, list[float]] = {}
    for labels in cases:
        axes = labels.geometry.orientation
        spacing = permute_to_orientation(spacing_mm, orientation, axes)
        for name, overlap in _dice(labels, parts, spacing):
            dice.setdefault(name, []).append(overlap)
    return {name: float(np.mean(values)) for name, values in dice.items()}


def _dice(
    labels: _Labels, parts: Mapping[str, tuple[int, ...]], spacing_mm: Millimetres
) -> Iterator[tuple[str, float]]:
    """Yields each structure of a case and its Dice after the round trip."""
    values = sorted(set().union(*parts.values()))
    numbers = {value: number for number, value in enumerate(values, start=1)}
    pairs = _count_pairs(labels, numbers, spacing_mm)
    for name, part in parts.items():
        rows = [numbers[value] for value in part]
        size = pairs[rows].sum()
        if size:
            overlap = 2 * pairs[np.ix_(rows, rows)].sum()
            yield name, float(overlap / (size + pairs[:, rows].sum()))


def _count_pairs(labels: _Labels, numbers: Mapping[int, int], spacing_mm: Millimetres) -> Array:
    """Counts annotated voxels by the number of their label before and after the round trip.

    A voxel that is not annotated any more counts as 0, a miss.
    """
    label = labels.array
    shape = resampled_geometry(labels.geometry, spacing_mm).shape
    resampled = resample_labels(label, shape)
    restored = resample_labels(resampled, label.shape)
    counts = is_annotated(label)
    before = translate(label[counts], numbers, np.int64)
    after = translate(restored[counts], numbers, np.int64)
    length = 1 + len(numbers)
    pairs = before * length + after
    table = np.bincount(pairs, minlength=length**2)
    return table.reshape(length, length)
