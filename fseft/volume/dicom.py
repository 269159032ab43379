"""DICOM series: a folder of slices that make a regular grid, or a clear refusal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.volume.nrrd_mha import dtype_of, pixel_id_of, simpleitk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.volume.geometry import Array

_MODALITY, _POSITION, _ORIENTATION = "0008|0060", "0020|0032", "0020|0037"
_CONVERT = "Convert it to .nii.gz first."
_SCOUTS = "Give one series without scouts."


@dataclass(frozen=True, eq=False)
class _Slice:
    file: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    position_mm: Array  # (3,): centre of the first pixel, LPS
    axes: Array  # (2, 3): unit vectors along a row (x) and along a column (y)
    dtype: np.dtype[Any]


def is_dicom(file: Path) -> bool:
    """Whether a file starts like DICOM."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except PermissionError:  # told by whoever reads it, with its case
        return False


def is_series(folder: Path) -> bool:
    """Whether a folder holds a DICOM file."""
    return any(is_dicom(file) for file in folder.iterdir() if file.is_file())


def read(folder: Path) -> tuple[Array, Array]:
    """Voxels (1, z, y, x), rescaled slice by slice as the headers say, and the affine to LPS mm.

    Raises:
        FseftError: As `describe`, or a slice cannot be decoded.
    """
    slices = _series(folder)
    affine = _affine(slices)
    with simpleitk() as sitk:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([item.file for item in slices])
        reader.SetOutputPixelType(
            pixel_id_of(sitk, np.result_type(*(item.dtype for item in slices)))
        )
        array: Array = sitk.GetArrayFromImage(reader.Execute())
    return array[np.newaxis], affine


def slice_files(folder: Path) -> list[str]:
    """Names of the files of the only series, in the order of the array.

    Raises:
        FseftError: As `describe`, but for the grid.
    """
    return [Path(item.file).name for item in _series(folder)]


def _series(folder: Path) -> list[_Slice]:
    """The slices of the only series, in order along the slice normal."""
    with simpleitk() as sitk:
        slices = [_slice(sitk, file) for file in _only_series(sitk, folder)]
    if len(slices) < 2:
        raise FseftError("holds a series of one slice", hint="A volume needs two or more.")
    sizes = {item.size[:2] for item in slices}
    if len(sizes) > 1:
        found = " and ".join(f"{columns}×{rows}" for columns, rows in sorted(sizes))
        raise FseftError(
            f"has slices of different size ({found} pixels)", hint="Give one series without scouts."
        )
    if np.ptp([item.axes for item in slices], axis=0).max() > 1e-3:
        raise FseftError("has slices of different orientation", hint=_SCOUTS)
    normal = np.cross(*slices[0].axes)
    return sorted(slices, key=lambda item: float(normal @ item.position_mm))


def _only_series(sitk: Any, folder: Path) -> Sequence[str]:
    reader = sitk.ImageSeriesReader
    series = {
        uid: reader.GetGDCMSeriesFileNames(str(folder), uid)
        for uid in reader.GetGDCMSeriesIDs(str(folder))
    }
    # The search leaves out what it cannot read: a cut slice at the end would go unnoticed.
    known = {Path(name).name for names in series.values() for name in names} | {"DICOMDIR"}
    for file in sorted(folder.iterdir()):
        if file.name not in known and file.is_file() and is_dicom(file):
            raise FseftError("is a damaged DICOM file", hint="Copy or export it again.", file=file)
    if not series:
        raise FseftError(
            "is a folder without a DICOM series", hint="Give an image file, or a folder of slices."
        )
    if len(series) > 1:
        found = ", ".join(
            f"{uid or 'no UID'} ({len(names)} files)" for uid, names in sorted(series.items())
        )
        raise FseftError(
            f"holds {len(series)} series: {found}", hint="Give a folder with one of them."
        )
    names: Sequence[str] = next(iter(series.values()))
    return names


def _slice(sitk: Any, file: str) -> _Slice:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    modality = tags.get(_MODALITY, "").strip()
    if modality == "SEG":
        raise FseftError("is a DICOM-SEG, not an image", hint=_CONVERT, file=file)
    if reader.GetSize()[2] > 1:
        raise FseftError(
            f"is a multi-frame file ({reader.GetSize()[2]} frames)", hint=_CONVERT, file=file
        )
    if reader.GetNumberOfComponents() > 1:
        raise FseftError("is a colour (RGB) image", hint="Give a series of grey images.", file=file)
    if _POSITION not in tags or _ORIENTATION not in tags:
        raise FseftError(
            f"has no position in space (modality {modality or 'unknown'})",
            hint="Give a CT or MR series.",
            file=file,
        )
    return _Slice(
        file=file,
        size=reader.GetSize(),
        spacing_mm=reader.GetSpacing(),
        position_mm=_numbers(tags[_POSITION]),
        axes=_numbers(tags[_ORIENTATION]).reshape(2, 3),
        dtype=dtype_of(sitk, reader.GetPixelID()),
    )


def _numbers(text: str) -> Array:
    return np.array([float(part) for part in text.split("\\")])


def _affine(slices: list[_Slice]) -> Array:
    """The grid of slices that are in order; SliceThickness is not used, it is often not the distance."""
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
    """Refuse gaps that differ by over 1 % (or by rounding: 0.02 mm; never over 0.1 mm), and sheared stacks.

    A stack is sheared, by gantry tilt, if the slices drift within their plane by over half a pixel in all.
    """
    gaps = np.diff(positions @ normal)
    gap = float(np.median(gaps))
    causes = []
    if np.abs(gaps - gap).max() > np.clip(0.01 * gap, 0.02, 0.1):
        causes.append(
            f"has unevenly spaced slices (gaps from {gaps.min():.4g} to {gaps.max():.4g} mm)"
        )
    path = positions[-1] - positions[0]
    along = float(normal @ path)
    drift = float(np.linalg.norm(path - along * normal))
    if drift > pixel_mm / 2:
        angle = np.degrees(np.arctan2(drift, along))
        causes.append(f"has a gantry tilt of {angle:.3g} degrees")
    if causes or gap <= 0:
        cause = " and ".join(causes) or "has all slices at one position"
        raise FseftError(
            cause, hint="Complete the series, or resample it to a regular grid as .nii.gz."
        )
