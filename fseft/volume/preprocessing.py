"""The way of a volume to the network's grid, and the way of its prediction back to the file's grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.volume.geometry import (
    Box,
    Geometry,
    bounding_box,
    crop,
    reorient,
    reoriented_view,
    resampled_geometry,
)
from fseft.volume.histogram import measure_intensities
from fseft.volume.intensity import AIR_THRESHOLD_HU
from fseft.volume.resample import (
    resample_image,
    resample_labels,
    resample_scores,
    resampled_argmax,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike

    from fseft.schemas import Millimetres, Modality
    from fseft.volume.geometry import Array
    from fseft.volume.image import Volume

FEW = 8
"""Voxels are picked one by one where it is less than one in so many: that costs more for each, measured."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GridTransform:
    """The grids that a volume passes through: all that the way back needs.

    Attributes:
        native: As stored in the file.
        canonical: After reorientation, before the crop.
        box: The crop, in the canonical array.
        geometry: After resampling; what the network sees.
    """

    native: Geometry
    canonical: Geometry
    box: Box
    geometry: Geometry

    def to_json(self) -> dict[str, Any]:
        """Plain lists, for the metadata of a cached case."""
        grids = {
            name: getattr(self, name).to_json() for name in ("native", "canonical", "geometry")
        }
        return {**grids, "box": [list(self.box.start), list(self.box.stop)]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GridTransform:
        """The inverse of `to_json`; other keys are ignored."""
        start, stop = (tuple(map(int, corner)) for corner in data["box"])
        return GridTransform(
            native=Geometry.from_json(data["native"]),
            canonical=Geometry.from_json(data["canonical"]),
            geometry=Geometry.from_json(data["geometry"]),
            box=Box(start, stop),  # type: ignore[arg-type]  # three each
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedVolume(GridTransform):
    """A volume on the network's grid, its intensities still as stored.

    Attributes:
        image: (C, i, j, k), integers where the file has integers, else float32.
        label: (i, j, k), or None.
        means: Of each channel over the crop, before resampling.
        stds: Standard deviations of the same.
        minima: The smallest value of each channel, in the file.
        maxima: The largest.
    """

    image: Array
    label: Array | None
    means: tuple[float, ...]
    stds: tuple[float, ...]
    minima: tuple[float, ...]
    maxima: tuple[float, ...]

    def statistics(self) -> dict[str, list[float]]:
        """What `normalise` asks of a case; one number per channel."""
        return {name: list(getattr(self, name)) for name in ("means", "stds", "minima", "maxima")}


def body_box(array: Array, modality: Modality) -> Box:
    """The box without the air around: CT above -500 HU, others above their minimum; all if nothing is left.

    Args:
        array: (C, i, j, k), as stored; a voxel counts that is above in any channel.
        modality: Of the volume.
    """
    floor = [AIR_THRESHOLD_HU if modality == "ct" else channel.min() for channel in array]
    mask = array[0] > floor[0]
    for channel, low in zip(array[1:], floor[1:], strict=True):
        mask |= channel > low
    return bounding_box(mask)


def preprocess_volume(
    volume: Volume,
    labels: Volume | None,
    *,
    orientation: str,
    spacing_mm: Millimetres,
    modality: Modality,
) -> PreparedVolume:
    """Reorient, crop away the air, resample.

    Args:
        volume: The image, as read.
        labels: Its labels on the same grid, as read; the crop never cuts a label.
        orientation: Three-letter code of the network's axes.
        spacing_mm: Along the network's axes.
        modality: Decides what is air.

    Raises:
        FseftError: The orientation is none, or the array does not hold labels.
    """
    turned, canonical = reorient(volume.array, volume.geometry, orientation)
    label = None if labels is None else reorient(labels.array, volume.geometry, orientation)[0][0]
    box = body_box(turned, modality)
    if label is not None and label.any():
        box = _united(box, bounding_box(label))
    image, cropped = crop(turned, canonical, box)
    geometry = resampled_geometry(cropped, spacing_mm)
    moments = [measure_intensities(np.ascontiguousarray(channel).reshape(-1)) for channel in image]
    return PreparedVolume(
        native=volume.geometry,
        canonical=canonical,
        box=box,
        geometry=geometry,
        image=_resampled(image, geometry.shape, modality),
        label=None if label is None else _resampled_labels(label[box.slices], geometry.shape),
        means=tuple(channel.mean for channel in moments),
        stds=tuple(float(np.sqrt(channel.variance)) for channel in moments),
        minima=tuple(float(channel.min()) for channel in turned),
        maxima=tuple(float(channel.max()) for channel in turned),
    )


@dataclass(frozen=True, eq=False)
class LabelMerger:
    """Which structures voxels of a file's grid belong to, where several networks may claim them.

    Attributes:
        labels: (i, j, k) in the axis order of the file; 0 is background.
        confidence: Of the claim of each voxel, (i, j, k); 0 in the background.
    """

    labels: Array
    confidence: Array

    @classmethod
    def empty(cls, native: Geometry, largest: int, confidence: DTypeLike) -> LabelMerger:
        """Background only, for labels up to the largest."""
        return cls(
            np.zeros(native.shape, np.min_scalar_type(largest)), np.zeros(native.shape, confidence)
        )

    def add(
        self, scores: Array, frame: GridTransform, ids: Sequence[int], confidence: int | None = None
    ) -> None:
        """Give each voxel to the strongest class of its scores, where no claim before was as strong.

        Args:
            scores: Logits (C, i, j, k) on the grid `frame.geometry`.
            frame: The `PreparedVolume` volume, or its frame.
            ids: Label value of each channel; 0 is background.
            confidence: Of the claims; without one, the softmax probability is.
        """
        values = np.asarray(ids, self.labels.dtype)
        labels, before = _inside(self.labels, frame), _inside(self.confidence, frame)
        for region, strongest, part in resampled_argmax(scores, frame.box.shape):
            found = strongest > 0
            claimed = (
                _certainty(part, found)
                if confidence is None
                else found * before.dtype.type(confidence)
            )
            wins = claimed > before[region]
            np.copyto(labels[region], values[strongest], where=wins)
            np.copyto(before[region], claimed, where=wins)


def restore_probabilities(scores: Array, frame: GridTransform) -> Array:
    """Scores on the file's grid.

    Args:
        scores: (C, i, j, k) floats on the grid `frame.geometry`.
        frame: The `PreparedVolume` volume, or its frame.

    Returns:
        float32 (C, i, j, k) in the axis order of the file; what was cropped away is 0.
    """
    full = np.zeros((len(scores), *frame.native.shape), np.float32)
    inside = _inside(full, frame)
    for region, part in resample_scores(scores, frame.box.shape):
        inside[(slice(None), *region)] = part
    return full


def _inside(array: Array, frame: GridTransform) -> Array:
    """The crop, on the network's axes, as a view of an array (..., i, j, k) on the file's grid."""
    view: Array = reoriented_view(array, frame.native, frame.canonical.orientation)[0][
        frame.box.slices
    ]
    return view


def _certainty(logits: Array, found: Array) -> Array:
    """Softmax of the largest of the logits (C, i, j, k) of a voxel where something was found, else 0."""
    if FEW * np.count_nonzero(found) > found.size:
        return _largest_probability(logits) * found
    certainty = np.zeros(found.shape, logits.dtype)
    certainty[found] = _largest_probability(logits[:, found])
    return certainty


def _largest_probability(logits: Array) -> Array:
    """Softmax of the largest of logits (C, ...)."""
    shifted = logits - logits.max(0)
    probability: Array = 1 / np.exp(shifted, out=shifted).sum(0)
    return probability


def _united(a: Box, b: Box) -> Box:
    start, stop = np.minimum(a.start, b.start), np.maximum(a.stop, b.stop)
    return Box(
        (int(start[0]), int(start[1]), int(start[2])), (int(stop[0]), int(stop[1]), int(stop[2]))
    )


def _resampled(image: Array, shape: tuple[int, int, int], modality: Modality) -> Array:
    """Cubic; whole numbers stay whole, in the smallest type that holds them."""
    dtype = _compact(image, modality)
    if image.shape[1:] == shape:
        return np.ascontiguousarray(image, dtype)
    resampled = resample_image(image, shape)
    return np.rint(resampled, out=resampled).astype(dtype) if dtype.kind in "iu" else resampled


def _resampled_labels(label: Array, shape: tuple[int, int, int]) -> Array:
    return np.ascontiguousarray(label) if label.shape == shape else resample_labels(label, shape)


def _compact(image: Array, modality: Modality) -> np.dtype[Any]:
    """The type to keep; CT stays signed, so that air fits even where there is none."""
    if image.dtype.kind in "iu":
        low, high = int(image.min()), int(image.max())
        for name in (
            ("int16", "int32") if modality == "ct" else ("uint8", "int16", "uint16", "int32")
        ):
            if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
                return np.dtype(name)
    return np.dtype(np.float32)
