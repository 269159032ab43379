"""Dice of the labels after resampling to the grid of the network and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from fseft.volume.fingerprint import permute_to_orientation, read_case, read_case_labels
from fseft.volume.geometry import bounding_box, crop, resampled_geometry
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


def label_round_trip(
    dataset: Dataset, fingerprint: Fingerprint, orientation: str
) -> RoundTrip | None:
    """Returns a function of a spacing: mean Dice of each structure after label -> grid -> label.

    It is the Dice of a perfect network. The first cases with structures are measured.

    Args:
        dataset: The dataset.
        fingerprint: Its fingerprint; cases and structures without measurements do not count.
        orientation: Axes of the spacing.
    """
    measured = {case.name for case in fingerprint.cases if case.volumes_mm3}
    cases = [case for case in dataset.cases if case.name in measured][:MAX_CASES]
    names = {entry.id: name for name, entry in fingerprint.classes.items() if entry.cases}
    if not cases:
        return None

    @cache
    def labels() -> list[_Labels]:
        return [_read(case, dataset.channels) for case in cases]

    @cache
    def round_trip(spacing_mm: Millimetres) -> Mapping[str, float]:
        return _mean_dice(labels(), names, spacing_mm, orientation)

    return round_trip


def _read(case: Case, channels: Sequence[str]) -> _Labels:
    labels = read_case_labels(case, read_case(case, channels))
    array = labels.array[0]
    return _Labels(*crop(array, labels.geometry, bounding_box(array, _MARGIN)))


def _mean_dice(
    cases: Sequence[_Labels], names: Mapping[int, str], spacing_mm: Millimetres, orientation: str
) -> dict[str, float]:
    """Returns the mean Dice of each named structure over the cases that have it."""
    dice: dict[str, list[float]] = {}
    for labels in cases:
        axes = labels.geometry.orientation
        for value, overlap in _dice(labels, permute_to_orientation(spacing_mm, orientation, axes)):
            if value in names:
                dice.setdefault(names[value], []).append(overlap)
    return {name: float(np.mean(values)) for name, values in dice.items()}


def _dice(labels: _Labels, spacing_mm: Millimetres) -> Iterator[tuple[int, float]]:
    """Yields each label value and its Dice after the round trip."""
    label = labels.array
    shape = resampled_geometry(labels.geometry, spacing_mm).shape
    restored = resample_labels(resample_labels(label, shape), label.shape)
    size = int(label.max()) + 1
    before, after, common = (
        np.bincount(values, minlength=size)
        for values in (label.ravel(), restored.ravel(), label[label == restored])
    )
    for value in np.flatnonzero(before[1:]) + 1:
        yield int(value), float(2 * common[value] / (before[value] + after[value]))
