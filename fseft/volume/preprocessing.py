"""Transform volumes to the network's grid, and predictions back to the grid of the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.volume.annotation import is_drawn
from fseft.volume.decision import confidence as confidence_of
from fseft.volume.geometry import (
    Box,
    Geometry,
    bounding_box,
    crop,
    cropped_geometry,
    reorient,
    reoriented_view,
    resampled_from_first_voxel,
    resampled_geometry,
)
from fseft.volume.histogram import measure_intensities
from fseft.volume.intensity import AIR_THRESHOLD_HU, clip_intensities, intensity_ranges
from fseft.volume.resample import (
    AxisSampling,
    resample_image,
    resample_labels,
    resample_scores,
)
from fseft.volume.shear import to_perpendicular
from fseft.volume.streamed_classes import StreamedClasses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import DTypeLike

    from fseft.schemas import Intensity, Modality, Preprocessing, Range
    from fseft.volume.geometry import Array
    from fseft.volume.image import Volume
    from fseft.volume.resample import Order

_AIR_HU = -1024.0
_ANISOTROPY = 3  # ratio of spacings, as in nnU-Net
_DECIMALS = 9  # of positions in voxels: more are rounding errors of the grids


@dataclass(frozen=True, eq=False, kw_only=True)
class GridTransform:
    """The grids between a file and the network, as the inverse transform needs them.

    Attributes:
        native: Grid of the file, or that with perpendicular axes (`fseft.volume.shear`).
        canonical: Grid after reorientation, before the crop.
        box: The crop, in the canonical array.
        geometry: Grid after resampling, the input of the network.
    """

    native: Geometry
    canonical: Geometry
    box: Box
    geometry: Geometry

    @property
    def restoring_axes(self) -> tuple[AxisSampling, ...]:
        """Positions of the voxels of the crop on the grid of the network."""
        return _axes(self.geometry, cropped_geometry(self.canonical, self.box))

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
        means: Mean of each channel over the region of its intensity scheme.
        stds: Standard deviation of each channel over this region.
        minima: Smallest value of each channel in the scan, or the percentile of its scheme.
        maxima: Largest value of each channel in the scan, or the percentile of its scheme.
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
    volume: Volume, labels: Volume | None, preprocessing: Preprocessing
) -> PreparedVolume:
    """Reorients, crops and resamples; intensities are normalised later, by `normalise`.

    A volume whose axes are not perpendicular is resampled to such ones first: `native` of the
    result is then `perpendicular_grid` of the volume's.

    Args:
        volume: The image, as read.
        labels: Its labels on the same grid, as read; the crop contains all structures.
        preprocessing: Grid and conventions of the network.

    Raises:
        FseftError: The orientation is invalid, or the array does not contain labels.
    """
    if preprocessing.channel_mode == "first":
        volume = replace(volume, array=volume.array[:1])
    return _preprocess(*_perpendicular(volume, labels, preprocessing), preprocessing)


def _preprocess(
    volume: Volume, labels: Volume | None, preprocessing: Preprocessing
) -> PreparedVolume:
    """Does it for a volume with perpendicular axes."""
    array, canonical = reorient(volume.array, volume.geometry, preprocessing.orientation)
    ranges = intensity_ranges(array, canonical, preprocessing.intensity)
    box, label = _crop_box(array, preprocessing, ranges), None
    visible = array[box.slices]
    if labels is not None:
        label = reorient(labels.array, volume.geometry, preprocessing.orientation)[0][0]
        box = _with_labels(box, is_drawn(label))
    box, geometry = _target_grid(canonical, box, preprocessing)
    image, cropped = crop(array, canonical, box)
    axes = _axes(cropped, geometry)
    if preprocessing.clip_first:
        image = clip_intensities(image, preprocessing.intensity)
    image = _resampled(image, axes, _orders(canonical, preprocessing), preprocessing.modality)
    return PreparedVolume(
        native=volume.geometry,
        canonical=canonical,
        box=box,
        geometry=geometry,
        image=image,
        label=None if label is None else resample_labels(label[box.slices], axes),
        **_statistics(visible, image, preprocessing.intensity, ranges),
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

    def adder(
        self,
        transform: GridTransform,
        values: Sequence[int],
        confidence: int | None = None,
        order: Sequence[int] = (),
    ) -> Callable[[Array], None]:
        """Returns a function that takes the scores of a network, in slabs along the first axis.

        It labels each voxel with its class, unless its label is as confident.

        Args:
            transform: The prepared volume, or its grids.
            values: Label value of each channel; 0 is background.
            confidence: The same for all voxels; by default the probability of the class.
            order: Channels in the order of writing; empty for the class of the highest score.

        Returns:
            A function to call with logits (C, rows, j, k) until all rows of the grid
            `transform.geometry` were passed.
        """
        label_values = np.asarray(values, self.labels.dtype)
        labels = _inside(self.labels, transform)
        confidences = _inside(self.confidence, transform)
        resampled = StreamedClasses(
            transform.geometry.shape,
            transform.restoring_axes,
            order,
            with_scores=confidence is None,
        )

        def add(slab: Array) -> None:
            for region, classes, logits in resampled.add(slab):
                if logits is not None:
                    confidence_of_class = confidence_of(logits, classes, order)
                else:
                    confidence_of_class = (classes > 0) * confidences.dtype.type(confidence)
                wins = confidence_of_class > confidences[region]
                np.copyto(labels[region], label_values[classes], where=wins)
                np.copyto(confidences[region], confidence_of_class, where=wins)

        return add


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
    for region, part in resample_scores(scores, transform.restoring_axes):
        inside[(slice(None), *region)] = part
    return restored


def _inside(array: Array, transform: GridTransform) -> Array:
    """Returns the crop, on the network's axes, as a view of (..., i, j, k) on the file's grid."""
    orientation = transform.canonical.orientation
    view, _ = reoriented_view(array, transform.native, orientation)
    inside: Array = view[transform.box.slices]
    return inside


def _perpendicular(
    volume: Volume, labels: Volume | None, preprocessing: Preprocessing
) -> tuple[Volume, Volume | None]:
    """Resamples image and labels to perpendicular axes, if theirs are not."""
    pad = _AIR_HU if preprocessing.modality == "ct" else None
    image = to_perpendicular(volume, pad=pad)
    return image, None if labels is None else to_perpendicular(labels, labels=True)


def _crop_box(array: Array, preprocessing: Preprocessing, ranges: Sequence[Range]) -> Box:
    """Returns the part of a scan (C, i, j, k) that the network sees."""
    if preprocessing.crop == "head":
        return _head_box(array, preprocessing, ranges)
    if preprocessing.crop == "body":
        return body_box(array, preprocessing.modality)
    if preprocessing.crop == "nonzero":
        return bounding_box(array)
    _, i, j, k = array.shape
    return Box((0, 0, 0), (i, j, k))


def _head_box(array: Array, preprocessing: Preprocessing, ranges: Sequence[Range]) -> Box:
    """Returns the box of voxels above the normalised threshold in any channel, with a margin."""
    mask = np.zeros(array.shape[1:], bool)
    threshold = preprocessing.crop_threshold
    for channel, (low, high) in zip(array, ranges, strict=False):
        mask |= channel > low + threshold * (high - low)
    return bounding_box(mask, preprocessing.crop_margin_voxels)


def _target_grid(
    canonical: Geometry, box: Box, preprocessing: Preprocessing
) -> tuple[Box, Geometry]:
    """Returns the grid of the network, and the crop that it is interpolated from."""
    spacing_mm = preprocessing.spacing_mm
    if preprocessing.alignment == "first-voxel":
        return resampled_from_first_voxel(canonical, box, spacing_mm)
    return box, resampled_geometry(cropped_geometry(canonical, box), spacing_mm)


def _axes(old: Geometry, new: Geometry) -> tuple[AxisSampling, ...]:
    """Returns the positions of the voxels of a grid on another one with parallel axes."""
    first = np.linalg.solve(old.affine, new.affine[:, 3])[:3]
    steps = np.divide(new.spacing_mm, old.spacing_mm)
    positions = zip(new.shape, first.tolist(), steps.tolist(), strict=True)
    return tuple(
        AxisSampling(size, round(start, _DECIMALS), round(step, _DECIMALS))
        for size, start, step in positions
    )


def _orders(canonical: Geometry, preprocessing: Preprocessing) -> tuple[Order, ...]:
    """Returns the order of interpolation along each axis."""
    order: Order = 1 if preprocessing.interpolation == "linear" else 3
    coarse: list[int] = []
    if preprocessing.interpolation == "nnunet":
        coarse = _coarse_axes(canonical.spacing_mm) or _coarse_axes(preprocessing.spacing_mm)
    return tuple(0 if coarse == [axis] else order for axis in range(3))


def _coarse_axes(spacing_mm: Sequence[float]) -> list[int]:
    """Returns the coarsest axes if they are over three times coarser than the finest."""
    coarsest = max(spacing_mm)
    if coarsest <= _ANISOTROPY * min(spacing_mm):
        return []
    return [axis for axis, side in enumerate(spacing_mm) if side == coarsest]


def _statistics(
    cropped: Array, resampled: Array, intensity: Sequence[Intensity], ranges: Sequence[Range]
) -> dict[str, tuple[float, ...]]:
    """Returns the statistics of each channel, over the region of its intensity scheme."""
    channels = []
    for index, scheme in enumerate(intensity):
        is_last = scheme.region == "resampled"
        values = np.ascontiguousarray((resampled if is_last else cropped)[index]).reshape(-1)
        minimum, maximum = ranges[index]
        if is_last:
            minimum, maximum = float(values.min()), float(values.max())
        if scheme.region == "nonzero":
            values = values[values != 0]
        measured = measure_intensities(values)
        channels.append((measured.mean, float(np.sqrt(measured.variance)), minimum, maximum))
    means, stds, minima, maxima = zip(*channels, strict=True)
    return {"means": means, "stds": stds, "minima": minima, "maxima": maxima}


def _with_labels(box: Box, drawn: Array) -> Box:
    """Returns the smallest box around a box and the drawn voxels (i, j, k)."""
    if not drawn.any():
        return box
    labelled = bounding_box(drawn)
    i, j, k = map(min, box.start, labelled.start)
    i_stop, j_stop, k_stop = map(max, box.stop, labelled.stop)
    return Box((i, j, k), (i_stop, j_stop, k_stop))


def _resampled(
    image: Array, axes: Sequence[AxisSampling], orders: Sequence[Order], modality: Modality
) -> Array:
    """Resamples an image; integers stay integers, in a small type."""
    dtype = _cached_dtype(image, modality)
    if all(axis.is_identity(old) for axis, old in zip(axes, image.shape[1:], strict=True)):
        return np.ascontiguousarray(image, dtype)
    resampled = resample_image(image, axes, orders)
    if dtype.kind in "iu":
        np.rint(resampled, out=resampled)
    return resampled.astype(dtype, copy=False)


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
