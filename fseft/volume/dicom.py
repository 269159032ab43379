"""DICOM series: folders of slices on a regular grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.volume.dicom_files import series_files, surplus_pixel_bytes
from fseft.volume.nrrd_mha import dtype_of, pixel_id_of, simpleitk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.volume.geometry import Array

_MODALITY, _POSITION, _ORIENTATION = "0008|0060", "0020|0032", "0020|0037"
_ROWS, _COLUMNS, _BITS = "0028|0010", "0028|0011", "0028|0100"
_IMAGE_IO = "GDCMImageIO"  # named, as ITK does not recognise files without preamble
_PIXEL_SPACING = "0028|0030"
_CONVERT = "Convert it to .nii.gz first."
_EVEN_FRACTION = 0.01  # tolerated distance of a slice from the regular grid, relative to the gap
_EVEN_MM = (0.07, 0.1)  # and its limits: positions are often rounded to 0.1 mm
_MAX_UNEVEN = 0.25  # fraction of the gap that is never tolerated, as a missing slice shifts by 0.5
_SAME_POSITION = 0.01  # fraction of the gap
_MAX_NAMED = 3  # files in a message


@dataclass(frozen=True, eq=False)
class _Slice:
    file: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    position_mm: Array  # (3,): centre of the first pixel, LPS
    axes: Array  # (2, 3): unit vectors along a row (x) and along a column (y)
    dtype: np.dtype[Any]


def read(folder: Path) -> tuple[Array, Array]:
    """Reads the voxels and the affine of a DICOM series.

    Args:
        folder: Folder with the files of one series.

    Returns:
        The voxels (1, z, y, x), each slice rescaled by its header, and the (4, 4) affine from the
        array index (z, y, x) to LPS mm.

    Raises:
        FseftError: The folder does not contain exactly one series, its slices are not grey images,
            are unevenly spaced or not in a straight line, or cannot be decoded.
    """
    slices = _read_series(folder)
    affine = _affine(slices)
    dtype = np.result_type(*(item.dtype for item in slices))
    with simpleitk() as sitk:
        reader = sitk.ImageSeriesReader()
        reader.SetImageIO(_IMAGE_IO)
        reader.SetFileNames([item.file for item in slices])
        reader.SetOutputPixelType(pixel_id_of(sitk, dtype))
        array: Array = sitk.GetArrayFromImage(reader.Execute())
    return array[np.newaxis], affine


def slice_files(folder: Path) -> list[str]:
    """Returns the file names of the only series, in the order of the array.

    Args:
        folder: Folder with the files of one series.

    Raises:
        FseftError: The folder does not contain exactly one series of grey images.
    """
    return [Path(item.file).name for item in _read_series(folder)]


def _read_series(folder: Path) -> list[_Slice]:
    """Reads the headers of the only series; slices are sorted along their normal."""
    with simpleitk() as sitk:
        slices = [_read_slice(sitk, file) for file in series_files(sitk, folder)]
    if len(slices) < 2:
        raise FseftError("contains a series of one slice", hint="A volume needs two or more.")
    _refuse_mixed_slices(slices)
    normal = np.cross(*slices[0].axes)
    return sorted(slices, key=lambda item: float(normal @ item.position_mm))


def _refuse_mixed_slices(slices: list[_Slice]) -> None:
    """Refuses slices of different size, pixel spacing or orientation."""
    sizes = sorted({item.size[:2] for item in slices})
    spacings = [item.spacing_mm[:2] for item in slices]
    cause = ""
    if len(sizes) > 1:
        listed = " and ".join(f"{columns}×{rows}" for columns, rows in sizes)
        cause = f"size ({listed} pixels)"
    elif np.ptp(spacings, axis=0).max() > _EVEN_FRACTION * np.min(spacings):
        cause = "pixel spacing"
    elif np.ptp([item.axes for item in slices], axis=0).max() > 1e-3:
        cause = "orientation"
    if cause:
        hint = "Give one series without scouts."
        raise FseftError(f"has slices of different {cause}", hint=hint)


def _read_slice(sitk: Any, file: str) -> _Slice:
    """Reads the header of a slice; refuses what is not a single grey image with a position."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IMAGE_IO)
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    if reader.GetNumberOfComponents() > 1:
        raise FseftError("is a colour (RGB) image", hint="Give a series of grey images.", file=file)
    _refuse_other_than_slice(file, tags, frames=reader.GetSize()[2])
    _refuse_surplus_pixels(file, tags)
    return _Slice(
        file=file,
        size=reader.GetSize(),
        spacing_mm=reader.GetSpacing(),
        position_mm=_numbers(tags[_POSITION]),
        axes=_numbers(tags[_ORIENTATION]).reshape(2, 3),
        dtype=dtype_of(sitk, reader.GetPixelID()),
    )


def _refuse_other_than_slice(file: str, tags: Mapping[str, str], *, frames: int) -> None:
    """Refuses segmentations, several frames, and slices without a place or a pixel size."""
    modality = tags.get(_MODALITY) or "unknown"
    if modality == "SEG":
        raise FseftError("is a DICOM-SEG, not an image", hint=_CONVERT, file=file)
    if frames > 1:
        raise FseftError(f"is a multi-frame file ({frames} frames)", hint=_CONVERT, file=file)
    if not (tags.get(_POSITION) and tags.get(_ORIENTATION)):
        cause = f"has no position in space (modality {modality})"
        raise FseftError(cause, hint="Give a CT or MR series.", file=file)
    if not tags.get(_PIXEL_SPACING):
        raise FseftError("has no PixelSpacing", hint="Export the series again.", file=file)


def _refuse_surplus_pixels(file: str, tags: Mapping[str, str]) -> None:
    """Refuses a slice with at least a row more than its header describes."""
    rows, columns, bits = (int(tags[tag]) for tag in (_ROWS, _COLUMNS, _BITS))
    row = columns * bits // 8
    surplus = surplus_pixel_bytes(Path(file), rows * row)
    if surplus >= row:
        cause = f"contains {surplus} bytes behind the pixels that its header describes"
        raise FseftError(cause, hint="Export the series again.", file=file)


def _numbers(text: str) -> Array:
    """Parses a multi-valued DICOM attribute."""
    parts = text.split("\\")
    return np.array([float(part) for part in parts])


def _affine(slices: list[_Slice]) -> Array:
    """Returns the affine of sorted slices; SliceThickness often differs from their distance."""
    row, column = slices[0].axes
    normal = np.cross(row, column)
    positions = np.array([item.position_mm for item in slices])
    width, height, _ = slices[0].spacing_mm
    _refuse_repeated_positions(slices, positions @ normal)
    _refuse_uneven_slices(positions @ normal)
    across = _across_slices(positions, normal, min(width, height))
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([across, column * height, row * width])
    affine[:3, 3] = positions[0]
    return affine


def _across_slices(positions: Array, normal: Array, pixel_mm: float) -> Array:
    """Returns the vector from a slice to the next one, (3,).

    It is along their normal, unless a tilted gantry has displaced the first and the last slice
    within their plane by more than half a pixel.

    Raises:
        FseftError: A slice is more than a pixel away from its place on the grid.
    """
    numbers = np.arange(len(positions))[:, np.newaxis]
    path = positions[-1] - positions[0]
    upright = normal * (normal @ path)
    is_tilted = np.linalg.norm(path - upright) > pixel_mm / 2
    across: Array = (path if is_tilted else upright) / (len(positions) - 1)
    displacements = np.linalg.norm(positions - positions[0] - numbers * across, axis=1)
    if displacements.max() > max(pixel_mm, _EVEN_MM[1]):
        millimetres = f"{displacements.max():.3g} mm"
        cause = f"has slices that are displaced by up to {millimetres} within their plane"
        raise FseftError(cause, hint="Resample it to a regular grid as .nii.gz.")
    return across


def _refuse_repeated_positions(slices: list[_Slice], heights_mm: Array) -> None:
    """Refuses several slices at one position: phases, echoes or b-values, or copies of files."""
    gaps = np.diff(heights_mm)
    if not gaps.any():
        raise FseftError("has all slices at one position", hint="Give the slices of a volume.")
    repeated = np.flatnonzero(gaps < _SAME_POSITION * gaps.max())
    if not repeated.size:
        return
    pairs = [
        " and ".join(sorted(Path(slices[index + step].file).name for step in (0, 1)))
        for index in repeated[:_MAX_NAMED]
    ]
    more = ", ..." if repeated.size > _MAX_NAMED else ""
    cause = f"has several slices at one position ({', '.join(pairs)}{more})"
    hint = "Give one volume (phase, echo, b-value) per folder, and remove copies of files."
    raise FseftError(cause, hint=hint)


def _refuse_uneven_slices(heights_mm: Array) -> None:
    if not _is_even(heights_mm):
        gaps = np.diff(heights_mm)
        cause = f"has unevenly spaced slices (gaps from {gaps.min():.4g} to {gaps.max():.4g} mm)"
        hint = "Complete the series, or resample it to a regular grid as .nii.gz."
        raise FseftError(cause, hint=hint)


def _is_even(heights_mm: Array) -> bool:
    """Returns whether sorted positions along the normal are a regular grid, up to rounding."""
    numbers = np.arange(len(heights_mm))
    line = np.polyfit(numbers, heights_mm, 1)
    distances_mm = np.abs(heights_mm - np.polyval(line, numbers))
    gap = float(np.median(np.diff(heights_mm)))
    low, high = _EVEN_MM
    tolerance_mm = min(max(_EVEN_FRACTION * gap, low), high)
    tolerance_mm = min(tolerance_mm, _MAX_UNEVEN * gap)
    return bool(distances_mm.max() <= tolerance_mm)
