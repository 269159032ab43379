"""Image files: the only module that reads and writes volumes.

Supported are `.nii`, `.nii.gz`, `.nrrd`, `.mha` and folders with one DICOM series. Arrays have the
axis order of SimpleITK (z, y, x), so that the grid of an image with identity direction has the
orientation "SPL".
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fseft import workspace
from fseft.errors import FseftError, pluralise
from fseft.volume import dicom, nifti, nrrd_mha
from fseft.volume._logging import warn_once
from fseft.volume.dicom_files import is_dicom
from fseft.volume.geometry import (
    Array,
    Geometry,
    format_xyz,
    geometry_mismatch,
    reorient,
    shear_degrees,
)
from fseft.volume.image_files import SUPPORTED, suffix_of
from fseft.volume.label_values import MAX_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_LABELS = 1000  # atlases of the whole body have some hundreds
_LABEL_ROUNDING = 0.01  # of labels that were resampled, or converted to floats and back
_MAX_LABEL_SLOPE = 0.5  # with larger steps, any values are near integers
_MAX_SHEAR_DEGREES = 45.0  # deviation from the right angle; the gantry of a CT tilts by up to 30
_USUAL_SPACING_MM = (0.01, 20.0)  # of scanners for patients and small animals
_MIN_SPACING_MM, _MAX_EXTENT_MM = 1e-4, 5000.0  # optical microscopes, and twice a tall patient


@dataclass(frozen=True, eq=False)
class Volume:
    """An image or a label map on its grid.

    Attributes:
        array: Voxels (channel, i, j, k).
        geometry: Grid of the last three axes.
    """

    array: Array
    geometry: Geometry


class _Format(Protocol):
    def read(self, path: Path, /) -> tuple[Array, Array]: ...


def read_volume(
    source: Path | Sequence[Path], *, channels: int | None = None, case: str | None = None
) -> Volume:
    """Reads an image of one or several channels.

    Args:
        source: One file or DICOM folder, whose fourth dimension or vector components are the
            channels; or one file per channel, all on the same grid, with permuted or flipped axes
            at most.
        channels: Expected number of channels; None accepts any.
        case: Case identifier, for error messages.

    Returns:
        The voxels as stored, (channel, z, y, x); integers stay integers, also after rescaling by
        whole numbers.

    Raises:
        FseftError: A file is missing, damaged or not a 3D image, contains NaN or infinity, or all
            voxels of every channel are equal; or the channels differ in grid or number.

    Examples:
        >>> import numpy as np, tempfile
        >>> from fseft.volume.geometry import Geometry
        >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> image = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4)
        >>> write_volume(path, image, Geometry((2, 3, 4), np.diag([5.0, 0.7, 0.7, 1.0])))
        >>> volume = read_volume(path)
        >>> volume.array.shape, volume.array.dtype
        ((1, 2, 3, 4), dtype('int16'))
    """
    paths = [source] if isinstance(source, Path) else list(source)
    expected = channels or max(1, len(paths))
    if len(paths) not in (1, expected):
        cause = f"has {pluralise(len(paths), 'image file')}, expected {expected}"
        raise FseftError(cause, hint="Give one file per channel.", case=case)
    if len(paths) == 1:
        volume = _read_image(paths[0], channels, case)
    else:
        volume = _join_channels(paths, case)
    with _located(paths[0], case):
        _check_not_constant(volume.array)
    return volume


def _join_channels(paths: Sequence[Path], case: str | None) -> Volume:
    """Reads one file per channel."""
    volumes = [_read_image(path, 1, case) for path in paths]
    geometry, arrays = volumes[0].geometry, []
    for path, volume in zip(paths, volumes, strict=True):
        array, turned = reorient(volume.array, volume.geometry, geometry.orientation)
        if difference := geometry_mismatch(turned, geometry):
            raise FseftError(
                f"is not on the grid of {paths[0].name}: {difference}",
                hint="Resample the channels to one grid.",
                case=case,
                file=path,
            )
        arrays.append(array)
    return Volume(np.concatenate(arrays), geometry)


def read_labels(path: Path, *, case: str | None = None) -> Volume:
    """Reads a label map.

    Args:
        path: A file or DICOM folder.
        case: Case identifier, for error messages.

    Returns:
        The labels (1, z, y, x) in the smallest unsigned integer type. Values with the rounding
        error of floats, or of integers that the header scales, become the nearest integers.

    Raises:
        FseftError: The file is missing, damaged or not a 3D image, has several channels, or
            contains negative or non-integer values.
    """
    with _located(path, case):
        volume = _load(path)
        if len(volume.array) > 1:
            raise FseftError(
                f"has {len(volume.array)} channels, expected one label map",
                hint="Save one whole number per voxel, not one channel per structure.",
            )
        array = volume.array
        if array.dtype.kind == "f":
            array = _rounded(array, _rounding_error(path))
        return Volume(_as_labels(array), volume.geometry)


def write_labels(
    path: Path, labels: Array, geometry: Geometry, *, scan: Path | None = None
) -> None:
    """Writes a label map atomically, in the smallest unsigned integer type.

    Args:
        path: File with the suffix `.nii`, `.nii.gz`, `.nrrd` or `.mha`, which decides the format.
        labels: (i, j, k), whole numbers from 0 on.
        geometry: Their grid.
        scan: File on this grid; see `write_volume`.

    Raises:
        FseftError: The suffix is unknown, a label is negative or not an integer, or the file cannot
            be written.

    Examples:
        >>> import numpy as np, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "liver.nrrd"
        >>> write_labels(path, np.ones((2, 3, 4)), Geometry((2, 3, 4), np.eye(4)))
        >>> read_labels(path).array.dtype
        dtype('uint8')
    """
    with _located(path, None):
        small = _as_labels(labels)
    write_volume(path, small[np.newaxis], geometry, scan=scan)


def write_volume(path: Path, array: Array, geometry: Geometry, *, scan: Path | None = None) -> None:
    """Writes an image atomically; `read_volume` returns the same voxels.

    Args:
        path: File with the suffix `.nii`, `.nii.gz`, `.nrrd` or `.mha`, which decides the format.
        array: (channel, i, j, k), integers or floats; bool becomes uint8, float16 becomes float32.
            Several channels become the fourth dimension of NIfTI files, the vector components of
            others.
        geometry: Grid of the last three axes.
        scan: File on this grid. If both are NIfTI files, qform, sform and units are copied from it,
            so that any program shows both files in the same place.

    Raises:
        FseftError: The suffix is unknown, the array is not on the grid, or the file cannot be
            written.
    """
    if array.shape[1:] != geometry.shape:
        raise FseftError(
            f"cannot hold an array {array.shape}: its grid is {geometry.shape}",
            hint="Arrays are (channel, i, j, k), labels (i, j, k).",
            file=path,
        )
    suffix = suffix_of(path)
    if not suffix:
        raise FseftError(f"has no image suffix ('{path.name}')", hint=SUPPORTED, file=path)
    dtype = {"bool": "uint8", "float16": "float32"}.get(array.dtype.name, array.dtype.name)
    array = array.astype(dtype, copy=False)
    with _located(path, None), workspace.atomic_write(path) as temporary:
        if not suffix.startswith(".nii"):
            nrrd_mha.write(temporary, array, geometry.affine)
            return
        is_nifti = scan is not None and suffix_of(scan).startswith(".nii") and scan.is_file()
        nifti.write(temporary, array, geometry.affine, scan if is_nifti else None)


def content_digest(source: Path | Sequence[Path]) -> str:
    """Returns a key of the bytes of image files: of a DICOM folder all files, sorted by name.

    Args:
        source: One file or folder, or one per channel; their order matters.

    Raises:
        FseftError: A file is missing.
    """
    paths = [source] if isinstance(source, Path) else list(source)
    digests = []
    for path in paths:
        with _located(path, None):
            files = sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]
            digests.append([workspace.file_digest(file) for file in files])
    return workspace.digest(digests)


def voxels_digest(volume: Volume) -> str:
    """Returns a key of one voxel in 64, independent of file format and order of axes.

    It recognises the same scan in another file; different scans do not share these voxels.
    """
    array, geometry = reorient(volume.array, volume.geometry, "RAS")
    sample = array[:, ::4, ::4, ::4].astype(np.float32)
    return workspace.digest(geometry.shape, sample.tobytes())


@contextmanager
def _located(path: Path, case: str | None) -> Iterator[None]:
    """Adds the case and the file to errors that are raised within."""
    try:
        yield
    except FseftError as error:
        raise error.located(case=case, file=path) from error
    except FileNotFoundError as error:
        raise FseftError("does not exist", hint="Check the path.", case=case, file=path) from error
    except OSError as error:
        cause = f"cannot be read ({error.strerror or error})"
        hint = "Check the file and its permissions."
        raise FseftError(cause, hint=hint, case=case, file=path) from error


def _format(path: Path) -> _Format:
    """Returns the module that reads this file."""
    if path.is_dir():
        return dicom
    if path.stat().st_size == 0:
        raise FseftError("is empty (0 bytes)", hint="Copy or export it again.")
    suffix = suffix_of(path)
    if suffix:
        return nifti if suffix.startswith(".nii") else nrrd_mha
    image = path.with_suffix(".img")
    if path.suffix == ".hdr" and not image.exists():
        raise FseftError(
            f"is a header without its image {image.name}", hint="Convert the pair to .nii.gz."
        )
    if is_dicom(path):
        hint = "Give the folder of its series; convert a DICOM-SEG to .nii.gz."
        raise FseftError("is a single DICOM file", hint=hint)
    raise FseftError(f"has an unsupported format ('{path.suffix}')", hint=SUPPORTED)


def _load(path: Path) -> Volume:
    """Reads a file; warns of an unusual grid and refuses an impossible one."""
    array, affine = _format(path).read(path)
    if (degrees := shear_degrees(affine)) > _MAX_SHEAR_DEGREES:
        cause = f"voxel axes are far from perpendicular (off by {degrees:.2g} degrees)"
        raise FseftError(cause, hint="Correct its header.")
    _, i, j, k = array.shape
    geometry = Geometry((i, j, k), affine)
    _check_size(path, geometry)
    return Volume(array, geometry)


def _check_size(path: Path, geometry: Geometry) -> None:
    """Refuses voxels and volumes of impossible size, and warns of unusual ones."""
    low, high = _USUAL_SPACING_MM
    spacing, extent = geometry.spacing_mm, geometry.extent_mm
    cause = f"has voxels of {format_xyz(spacing)} mm"
    if min(spacing) < _MIN_SPACING_MM or max(extent) > _MAX_EXTENT_MM:
        cause = f"{cause} and a size of {format_xyz(extent)} mm, which is impossible"
        raise FseftError(cause, hint="Correct the spacing in its header, which is in mm.")
    if min(spacing) < low or max(spacing) > high:
        warn_once(f"{path}: {cause}; check that its header is in mm")


def _read_image(path: Path, channels: int | None, case: str | None) -> Volume:
    with _located(path, case):
        volume = _load(path)
        count = len(volume.array)
        if channels not in (None, count):
            content = f"{count} frames (4D)" if count > 1 else "1 channel"
            raise FseftError(
                f"has {content}, expected {pluralise(channels or 1, 'channel')}",
                hint="Give the right file, or split it.",
            )
        _check_finite(volume.array)
        return volume


def _check_finite(array: Array) -> None:
    """Refuses images with NaN or infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = array.size - int(np.isfinite(array).sum())
        raise FseftError(
            f"contains {pluralise(count, 'voxel')} of NaN or infinity among {array.size}",
            hint="Replace them by the background value.",
        )


def _check_not_constant(array: Array) -> None:
    """Refuses images (C, z, y, x) with a single value in each channel."""
    if all(channel.min() == channel.max() for channel in array):
        cause = f"is constant (all voxels are {array.flat[0]})"
        raise FseftError(cause, hint="Check how it was exported.")


def _rounding_error(path: Path) -> float:
    """Returns the largest distance of stored labels from integers."""
    slope = nifti.slope(path) if suffix_of(path).startswith(".nii") else 0.0
    if slope > _MAX_LABEL_SLOPE:
        return _LABEL_ROUNDING
    return max(_LABEL_ROUNDING, 0.51 * slope)  # half a step, and the error of float32


def _rounded(array: Array, tolerance: float) -> Array:
    """Returns floats as integers that are at most this far away."""
    rounded = np.rint(array)
    with np.errstate(invalid="ignore"):  # of infinity
        is_integer = np.abs(array - rounded) <= tolerance
    if not is_integer.all():
        others = array[~is_integer]
        raise FseftError(
            f"contains {pluralise(others.size, 'non-integer voxel')} (e.g. {others[0]})",
            hint="Give a label map; resample labels with nearest neighbour.",
        )
    return rounded


def _as_labels(array: Array) -> Array:
    """Returns labels in the smallest unsigned type; refuses arrays that are not label maps."""
    if array.dtype.kind == "f":
        array = _rounded(array, 0.0)
    if array.min() < 0:
        cause = f"contains negative labels (lowest {array.min()})"
        raise FseftError(cause, hint="Number labels from 0 on.")
    highest = int(array.max())
    if highest > MAX_VALUE:
        cause = f"contains the label value {array.max()}"
        raise FseftError(cause, hint=f"Use values from 0 to {MAX_VALUE}.")
    labels = array.astype(np.min_scalar_type(highest))
    if highest > np.iinfo(np.uint8).max:
        _check_label_count(labels)
    return labels


def _check_label_count(labels: Array) -> None:
    """Refuses label maps with as many values as an image has; one voxel in eight is looked at."""
    count = len(np.unique(labels[..., ::2, ::2, ::2]))
    if count > _MAX_LABELS:
        raise FseftError(
            f"contains at least {count} different values, as an image does, not labels",
            hint="Give the label map.",
        )
