"""DICOM series: folders of slices on a regular grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.volume.nrrd_mha import dtype_of, pixel_id_of, simpleitk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.volume.geometry import Array

_MODALITY, _POSITION, _ORIENTATION = "0008|0060", "0020|0032", "0020|0037"
_CONVERT = "Convert it to .nii.gz first."
_EXCLUDE_SCOUTS = "Give one series without scouts."
_EVEN_FRACTION = 0.01  # tolerated difference of slice gaps, relative to the median gap
_EVEN_MM = (0.02, 0.1)  # and its limits: rounding of positions, and the largest difference


@dataclass(frozen=True, eq=False)
class _Slice:
    file: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    position_mm: Array  # (3,): centre of the first pixel, LPS
    axes: Array  # (2, 3): unit vectors along a row (x) and along a column (y)
    dtype: np.dtype[Any]


def is_dicom(file: Path) -> bool:
    """Returns whether a file begins with a DICOM preamble."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except PermissionError:  # reported with the case when the file is read
        return False


def is_series(folder: Path) -> bool:
    """Returns whether a folder contains a DICOM file."""
    return any(is_dicom(file) for file in folder.iterdir() if file.is_file())


def read(folder: Path) -> tuple[Array, Array]:
    """Reads the voxels and the affine of a DICOM series.

    Args:
        folder: Folder with the files of one series.

    Returns:
        The voxels (1, z, y, x), each slice rescaled by its header, and the (4, 4) affine from the
        array index (z, y, x) to LPS mm.

    Raises:
        FseftError: The folder does not contain exactly one series, its slices are not grey images,
            are unevenly spaced or tilted, or cannot be decoded.
    """
    slices = _read_series(folder)
    affine = _affine(slices)
    dtype = np.result_type(*(item.dtype for item in slices))
    with simpleitk() as sitk:
        reader = sitk.ImageSeriesReader()
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
        slices = [_read_slice(sitk, file) for file in _series_files(sitk, folder)]
    if len(slices) < 2:
        raise FseftError("contains a series of one slice", hint="A volume needs two or more.")
    sizes = sorted({item.size[:2] for item in slices})
    if len(sizes) > 1:
        listed = " and ".join(f"{columns}×{rows}" for columns, rows in sizes)
        cause = f"has slices of different size ({listed} pixels)"
        raise FseftError(cause, hint=_EXCLUDE_SCOUTS)
    axes = [item.axes for item in slices]
    if np.ptp(axes, axis=0).max() > 1e-3:
        raise FseftError("has slices of different orientation", hint=_EXCLUDE_SCOUTS)
    normal = np.cross(*axes[0])
    return sorted(slices, key=lambda item: float(normal @ item.position_mm))


def _series_files(sitk: Any, folder: Path) -> Sequence[str]:
    """Returns the files of the only series in a folder."""
    reader = sitk.ImageSeriesReader
    series: dict[str, Sequence[str]] = {}
    for uid in reader.GetGDCMSeriesIDs(str(folder)):
        series[uid] = reader.GetGDCMSeriesFileNames(str(folder), uid)
    _refuse_unlisted_files(folder, series)
    if not series:
        hint = "Give an image file, or a folder of slices."
        raise FseftError("is a folder without a DICOM series", hint=hint)
    if len(series) > 1:
        counts = [f"{uid or 'no UID'} ({len(series[uid])} files)" for uid in sorted(series)]
        cause = f"contains {len(series)} series: {', '.join(counts)}"
        raise FseftError(cause, hint="Give a folder with one of them.")
    (files,) = series.values()
    return files


def _refuse_unlisted_files(folder: Path, series: Mapping[str, Sequence[str]]) -> None:
    """Refuses DICOM files in no series: GDCM omits damaged slices, such as a truncated last one."""
    listed = {"DICOMDIR"}
    for files in series.values():
        listed.update(Path(file).name for file in files)
    for file in sorted(folder.iterdir()):
        if file.name not in listed and file.is_file() and is_dicom(file):
            raise FseftError("is a damaged DICOM file", hint="Copy or export it again.", file=file)


def _read_slice(sitk: Any, file: str) -> _Slice:
    """Reads the header of a slice; refuse what is not a single grey image with a position."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    modality = tags.get(_MODALITY, "").strip()
    frames = reader.GetSize()[2]
    if modality == "SEG":
        raise FseftError("is a DICOM-SEG, not an image", hint=_CONVERT, file=file)
    if frames > 1:
        raise FseftError(f"is a multi-frame file ({frames} frames)", hint=_CONVERT, file=file)
    if reader.GetNumberOfComponents() > 1:
        raise FseftError("is a colour (RGB) image", hint="Give a series of grey images.", file=file)
    if _POSITION not in tags or _ORIENTATION not in tags:
        cause = f"has no position in space (modality {modality or 'unknown'})"
        raise FseftError(cause, hint="Give a CT or MR series.", file=file)
    return _Slice(
        file=file,
        size=reader.GetSize(),
        spacing_mm=reader.GetSpacing(),
        position_mm=_numbers(tags[_POSITION]),
        axes=_numbers(tags[_ORIENTATION]).reshape(2, 3),
        dtype=dtype_of(sitk, reader.GetPixelID()),
    )


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
    _check_regular(positions, normal, min(width, height))
    span = normal @ (positions[-1] - positions[0])
    affine = np.eye(4)
    affine[:3, 0] = normal * span / (len(slices) - 1)
    affine[:3, 1] = column * height
    affine[:3, 2] = row * width
    affine[:3, 3] = positions[0]
    return affine


def _check_regular(positions: Array, normal: Array, pixel_mm: float) -> None:
    """Refuses uneven gaps between slices, and stacks that gantry tilt has sheared.

    A stack is sheared if the first and the last slice are displaced within their plane by more than
    half a pixel.
    """
    gaps = np.diff(positions @ normal)
    gap = float(np.median(gaps))
    causes = []
    tolerance_mm = np.clip(_EVEN_FRACTION * gap, *_EVEN_MM)
    if np.abs(gaps - gap).max() > tolerance_mm:
        limits = f"gaps from {gaps.min():.4g} to {gaps.max():.4g} mm"
        causes.append(f"has unevenly spaced slices ({limits})")
    path = positions[-1] - positions[0]
    height = float(normal @ path)
    displacement = float(np.linalg.norm(path - height * normal))
    if displacement > pixel_mm / 2:
        angle = np.degrees(np.arctan2(displacement, height))
        causes.append(f"has a gantry tilt of {angle:.3g} degrees")
    if causes or gap <= 0:
        cause = " and ".join(causes) or "has all slices at one position"
        hint = "Complete the series, or resample it to a regular grid as .nii.gz."
        raise FseftError(cause, hint=hint)
