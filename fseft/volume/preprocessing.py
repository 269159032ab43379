"""Transform volumes to the network's grid, and predictions back to the grid of the file."""

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

_SPARSE = 8  # gathering voxels is measured to be faster if less than one in so many is needed


@dataclass(frozen=True, eq=False, kw_only=True)
class GridTransform:
    """The grids between a file and the network, as the inverse transform needs them.

    Attributes:
        native: Grid of the file.
        canonical: Grid after reorientation, before the crop.
        box: The crop, in the canonical array.
        geometry: Grid after resampling, the input of the network.
    """

    native: Geometry
    canonical: Geometry
    box: Box
    geometry: Geometry

    def to_json(self) -> dict[str, Any]:
        """Returns plain lists, for the metadata of a cached case."""
        return {
            "native": self.native.to_json(),
            "canonical": self.canonical.to_json(),
            "geometry": self.geometry.to_json(),
            "box": [list(self.box.start), list(self.box.stop)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GridTransform:
        """Returns the transform that `to_json` serialised; other keys are ignored."""
        start, stop = (tuple(map(int, corner)) for corner in data["box"])
        return GridTransform(
            native=Geometry.from_json(data["native"]),
            canonical=Geometry.from_json(data["canonical"]),
            geometry=Geometry.from_json(data["geometry"]),
            box=Box(start, stop),  # type: ignore[arg-type]  # three each
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedVolume(GridTransform):
    """A volume on the network's grid, with intensities as stored.

    Attributes:
        image: (C, i, j, k), integers if the file has integers, else float32.
        label: (i, j, k), or None.
        means: Mean of each channel over the crop, before resampling.
        stds: Standard deviation of each channel over the crop, before resampling.
        minima: Smallest value of each channel in the file.
        maxima: Largest value of each channel in the file.
    """

    image: Array
    label: Array | None
    means: tuple[float, ...]
    stds: tuple[float, ...]
    minima: tuple[float, ...]
    maxima: tuple[float, ...]

    def statistics(self) -> dict[str, list[float]]:
        """Returns the `case_stats` of `normalise`, with one number per channel."""
        return {
            "means": list(self.means),
            "stds": list(self.stds),
            "minima": list(self.minima),
            "maxima": list(self.maxima),
        }


def body_box(array: Array, modality: Modality) -> Box:
    """Returns the bounding box of the body, without surrounding air.

    The threshold is -500 HU for CT and the minimum of the channel otherwise. If no voxel exceeds
    it, the box is the whole array.

    Args:
        array: (C, i, j, k), as stored; a voxel counts if it exceeds the threshold in any channel.
        modality: Modality of the volume.
    """
    mask = np.zeros(array.shape[1:], bool)
    for channel in array:
        threshold = AIR_THRESHOLD_HU if modality == "ct" else channel.min()
        mask |= channel > threshold
    return bounding_box(mask)


def preprocess_volume(
    volume: Volume,
    labels: Volume | None,
    *,
    orientation: str,
    spacing_mm: Millimetres,
    modality: Modality,
) -> PreparedVolume:
    """Reorients, crops to the body and resample.

    Args:
        volume: The image, as read.
        labels: Its labels on the same grid, as read; the crop contains all labelled voxels.
        orientation: Three-letter code of the network's axes.
        spacing_mm: Target spacing along the network's axes.
        modality: Modality of the image; decides the threshold of air.

    Raises:
        FseftError: The code is not an orientation, or the array does not contain labels.
    """
    array, canonical = reorient(volume.array, volume.geometry, orientation)
    box, label = body_box(array, modality), None
    if labels is not None:
        label = reorient(labels.array, volume.geometry, orientation)[0][0]
        if label.any():
            box = _union(box, bounding_box(label))
        label = label[box.slices]
    image, cropped = crop(array, canonical, box)
    geometry = resampled_geometry(cropped, spacing_mm)
    means, stds = _moments(image)
    return PreparedVolume(
        native=volume.geometry,
        canonical=canonical,
        box=box,
        geometry=geometry,
        image=_resampled(image, geometry.shape, modality),
        label=None if label is None else _resampled_labels(label, geometry.shape),
        means=means,
        stds=stds,
        minima=tuple(float(channel.min()) for channel in array),
        maxima=tuple(float(channel.max()) for channel in array),
    )


@dataclass(frozen=True, eq=False)
class LabelMerger:
    """One label map of the predictions of several networks; the most confident label wins.

    Attributes:
        labels: (i, j, k) on the grid of the file; 0 is background.
        confidence: Confidence of each voxel's label, (i, j, k); 0 in the background.
    """

    labels: Array
    confidence: Array

    @classmethod
    def empty(cls, native: Geometry, largest: int, confidence: DTypeLike) -> LabelMerger:
        """Returns a merger with background only.

        Args:
            native: Grid of the file.
            largest: Largest label value that will be added.
            confidence: Dtype of the confidence.
        """
        labels = np.zeros(native.shape, np.min_scalar_type(largest))
        return cls(labels, np.zeros(native.shape, confidence))

    def add(
        self,
        scores: Array,
        transform: GridTransform,
        values: Sequence[int],
        confidence: int | None = None,
    ) -> None:
        """Label each voxel with its class of highest score, unless its label is as confident.

        Args:
            scores: Logits (C, i, j, k) on the grid `transform.geometry`.
            transform: The prepared volume, or its grids.
            values: Label value of each channel; 0 is background.
            confidence: The same for all voxels; by default the softmax probability of the class.
        """
        label_values = np.asarray(values, self.labels.dtype)
        labels = _inside(self.labels, transform)
        confidences = _inside(self.confidence, transform)
        for region, classes, logits in resampled_argmax(scores, transform.box.shape):
            foreground = classes > 0
            if confidence is None:
                confidence_of_class = _max_probability(logits, foreground)
            else:
                confidence_of_class = foreground * confidences.dtype.type(confidence)
            wins = confidence_of_class > confidences[region]
            np.copyto(labels[region], label_values[classes], where=wins)
            np.copyto(confidences[region], confidence_of_class, where=wins)


def restore_probabilities(scores: Array, transform: GridTransform) -> Array:
    """Resamples class probabilities to the grid of the file.

    Args:
        scores: (C, i, j, k) floats on the grid `transform.geometry`.
        transform: The prepared volume, or its grids.

    Returns:
        float32 (C, i, j, k) in the axis order of the file; 0 outside the crop.
    """
    restored = np.zeros((len(scores), *transform.native.shape), np.float32)
    inside = _inside(restored, transform)
    for region, part in resample_scores(scores, transform.box.shape):
        inside[(slice(None), *region)] = part
    return restored


def _inside(array: Array, transform: GridTransform) -> Array:
    """Returns the crop, on the network's axes, as a view of (..., i, j, k) on the file's grid."""
    orientation = transform.canonical.orientation
    view, _ = reoriented_view(array, transform.native, orientation)
    inside: Array = view[transform.box.slices]
    return inside


def _max_probability(logits: Array, foreground: Array) -> Array:
    """Returns the softmax of the largest logit (C, i, j, k) in the foreground, 0 elsewhere."""
    if _SPARSE * np.count_nonzero(foreground) > foreground.size:
        return _softmax_of_max(logits) * foreground
    probability = np.zeros(foreground.shape, logits.dtype)
    probability[foreground] = _softmax_of_max(logits[:, foreground])
    return probability


def _softmax_of_max(logits: Array) -> Array:
    """Returns the softmax of the largest of logits (C, ...)."""
    shifted = logits - logits.max(0)
    probability: Array = 1 / np.exp(shifted, out=shifted).sum(0)
    return probability


def _moments(image: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel (C, i, j, k)."""
    channels = [measure_intensities(np.ascontiguousarray(channel).reshape(-1)) for channel in image]
    means = tuple(channel.mean for channel in channels)
    stds = tuple(float(np.sqrt(channel.variance)) for channel in channels)
    return means, stds


def _union(a: Box, b: Box) -> Box:
    """Returns the smallest box around two boxes."""
    i, j, k = map(min, a.start, b.start)
    i_stop, j_stop, k_stop = map(max, a.stop, b.stop)
    return Box((i, j, k), (i_stop, j_stop, k_stop))


def _resampled(image: Array, shape: tuple[int, int, int], modality: Modality) -> Array:
    """Resamples by cubic splines; integers stay integers, in a small type."""
    dtype = _cached_dtype(image, modality)
    if image.shape[1:] == shape:
        return np.ascontiguousarray(image, dtype)
    resampled = resample_image(image, shape)
    if dtype.kind in "iu":
        np.rint(resampled, out=resampled)
    return resampled.astype(dtype, copy=False)


def _resampled_labels(label: Array, shape: tuple[int, int, int]) -> Array:
    return np.ascontiguousarray(label) if label.shape == shape else resample_labels(label, shape)


def _cached_dtype(image: Array, modality: Modality) -> np.dtype[Any]:
    """Returns the smallest dtype; CT stays signed, so that it can represent air."""
    if image.dtype.kind in "iu":
        low, high = int(image.min()), int(image.max())
        unsigned = modality != "ct"
        for name in ("uint8", "int16", "uint16", "int32") if unsigned else ("int16", "int32"):
            limits = np.iinfo(name)
            if limits.min <= low and high <= limits.max:
                return np.dtype(name)
    return np.dtype(np.float32)
