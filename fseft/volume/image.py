"""Image files in and out: the only place that reads and writes volumes.

`.nii`, `.nii.gz`, `.nrrd`, `.mha` and folders with one DICOM series. Arrays come in the axis order of
SimpleITK (z, y, x), so that the grid of an image with identity direction has the orientation "SPL".
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fseft import workspace
from fseft.errors import FseftError, pluralise
from fseft.volume import dicom, nifti, nrrd_mha
from fseft.volume.geometry import Array, Geometry, geometry_mismatch, nearest_orthonormal, reorient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")

_KNOWN = f"Give {', '.join(IMAGE_SUFFIXES)} or a folder with one DICOM series."
_MOST_LABELS = 1000  # an atlas of the whole body has some hundreds
_OBLIQUE_DEGREES = 0.01  # by how much axes may miss the right angle before we speak of it


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels (channel, i, j, k) and where they lie."""

    array: Array
    geometry: Geometry


class _Format(Protocol):
    def read(self, path: Path, /) -> tuple[Array, Array]: ...


def case_name(path: Path) -> str:
    """The file name without its image suffix: `case_0000.nii.gz` is `case_0000`."""
    return path.name[: len(path.name) - len(_suffix(path))]


def is_image(path: Path) -> bool:
    """Whether this is a file with an image suffix, or a folder with DICOM files."""
    return dicom.is_series(path) if path.is_dir() else bool(_suffix(path))


def read_volume(
    source: Path | Sequence[Path], *, channels: int | None = None, case: str | None = None
) -> Volume:
    """Read an image of one or several channels.

    Args:
        source: One file or DICOM folder, whose fourth dimension or vector components are the channels; or one
            file per channel, all on the same grid.
        channels: How many there must be; None takes what comes.
        case: The case identifier, for errors.

    Returns:
        The voxels as stored, (channel, z, y, x): integers stay integers, also after a whole-numbered rescale.

    Raises:
        FseftError: A file is missing, damaged or no 3D image, holds NaN or infinity, or has all voxels equal;
            the channels differ in grid or are not as many as expected.
    """
    paths = [source] if isinstance(source, Path) else list(source)
    expected = channels or max(1, len(paths))
    if len(paths) not in (1, expected):
        cause = f"has {pluralise(len(paths), 'image file')}, expected {expected}"
        raise FseftError(cause, hint="Give one file per channel.", case=case)
    volumes = [_read_image(path, channels if len(paths) == 1 else 1, case) for path in paths]
    geometry = volumes[0].geometry
    for path, volume in zip(paths, volumes, strict=True):
        difference = geometry_mismatch(volume.geometry, geometry)
        if difference:
            raise FseftError(
                f"is not on the grid of {paths[0].name}: {difference}",
                hint="Resample the channels to one grid.",
                case=case,
                file=path,
            )
    if len(volumes) == 1:
        return volumes[0]
    return Volume(np.concatenate([volume.array for volume in volumes]), geometry)


def read_labels(path: Path, *, case: str | None = None) -> Volume:
    """Read a label map.

    Returns:
        The labels (1, z, y, x) in the smallest unsigned integer type that holds them.

    Raises:
        FseftError: As for images, or a label is negative or no whole number, or there are several channels.
    """
    with _located(path, case):
        volume = _load(path)
        if len(volume.array) > 1:
            raise FseftError(
                f"has {len(volume.array)} channels, expected one label map",
                hint="Save one whole number per voxel, not one channel per structure.",
            )
        return Volume(_as_labels(volume.array), volume.geometry)


def write_labels(path: Path, labels: Array, geometry: Geometry) -> None:
    """Write a label map atomically, in the format of the suffix and the smallest unsigned integer type.

    Args:
        path: `.nii`, `.nii.gz`, `.nrrd` or `.mha`.
        labels: (i, j, k), whole numbers from 0 on.
        geometry: Where they lie.

    Raises:
        FseftError: The suffix is unknown, a label is negative or fractional, or the file cannot be written.
    """
    with _located(path, None):
        small = _as_labels(labels)
    write_volume(path, small[np.newaxis], geometry)


def write_volume(path: Path, array: Array, geometry: Geometry) -> None:
    """Write an image atomically, in the format of the suffix; `read_volume` gives it back.

    Args:
        path: `.nii`, `.nii.gz`, `.nrrd` or `.mha`.
        array: (channel, i, j, k), integers or floats; bool becomes uint8 and float16 float32. Several
            channels become the fourth dimension of a NIfTI file, the vector components of the others.
        geometry: Where it lies.

    Raises:
        FseftError: The suffix is unknown, the array is not on the grid, or the file cannot be written.
    """
    if array.shape[1:] != geometry.shape:
        raise FseftError(
            f"cannot hold an array {array.shape}: its grid is {geometry.shape}",
            hint="Arrays are (channel, i, j, k), labels (i, j, k).",
            file=path,
        )
    small = {"bool": "uint8", "float16": "float32"}.get(array.dtype.name, array.dtype.name)
    suffix = _suffix(path)
    if not suffix:
        raise FseftError(f"has no image suffix ('{path.name}')", hint=_KNOWN, file=path)
    module = nifti if suffix.startswith(".nii") else nrrd_mha
    with _located(path, None), workspace.atomic_write(path) as temporary:
        module.write(temporary, array.astype(small, copy=False), geometry.affine)


def content_digest(source: Path | Sequence[Path]) -> str:
    """A key of what the files hold: all of a DICOM folder sorted by name, several channels in their order.

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
    """A key of one voxel in 64, which no two scans share: it knows a scan in another file format or order of axes."""
    array, geometry = reorient(volume.array, volume.geometry, "RAS")
    return workspace.digest(geometry.shape, array[:, ::4, ::4, ::4].astype(np.float32).tobytes())


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), "")


@contextmanager
def _located(path: Path, case: str | None) -> Iterator[None]:
    """Tell errors from inside with the case and the file."""
    try:
        yield
    except FseftError as error:
        raise error.located(case=case, file=path) from error
    except FileNotFoundError as error:
        raise FseftError(
            "there is no such file", hint="Check the path.", case=case, file=path
        ) from error
    except OSError as error:
        cause = f"cannot be read ({error.strerror or error})"
        raise FseftError(
            cause, hint="Check the file and its rights.", case=case, file=path
        ) from error


def _format(path: Path) -> _Format:
    """The module that reads this file, or why there is none."""
    if path.is_dir():
        return dicom
    if path.stat().st_size == 0:
        raise FseftError("is empty (0 bytes)", hint="Copy or export it again.")
    suffix = _suffix(path)
    if suffix:
        return nifti if suffix.startswith(".nii") else nrrd_mha
    if path.suffix == ".hdr" and not path.with_suffix(".img").exists():
        raise FseftError(
            f"is a header without its image {path.with_suffix('.img').name}",
            hint="Convert the pair to .nii.gz.",
        )
    if dicom.is_dicom(path):
        hint = "Give the folder of its series; convert a DICOM-SEG to .nii.gz."
        raise FseftError("is a single DICOM file", hint=hint)
    raise FseftError(f"is of no format that is read here ('{path.suffix}')", hint=_KNOWN)


def _geometry(path: Path, shape: tuple[int, ...], affine: Array) -> Geometry:
    """The grid with perpendicular axes, as all that follows expects; a real repair is told."""
    repaired, degrees = nearest_orthonormal(affine)
    if degrees > _OBLIQUE_DEGREES:
        warnings.warn(
            f"{path}: voxel axes are not perpendicular (off by {degrees:.2g} degrees); "
            "taken as the nearest ones that are",
            stacklevel=3,
        )
    return Geometry((shape[1], shape[2], shape[3]), repaired)


def _load(path: Path) -> Volume:
    array, affine = _format(path).read(path)
    return Volume(array, _geometry(path, array.shape, affine))


def _read_image(path: Path, channels: int | None, case: str | None) -> Volume:
    with _located(path, case):
        volume = _load(path)
        found = len(volume.array)
        if channels not in (None, found):
            what = pluralise(found, "channel") if found == 1 else f"{found} frames (4D)"
            raise FseftError(
                f"has {what}, expected {pluralise(channels or 1, 'channel')}",
                hint="Give the right file, or split it.",
            )
        _check_voxels(volume.array)
        return volume


def _check_voxels(array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = array.size - int(np.isfinite(array).sum())
        raise FseftError(
            f"holds {pluralise(bad, 'voxel')} of NaN or infinity among {array.size}",
            hint="Replace them by the background value.",
        )
    if array.min() == array.max():
        raise FseftError(
            f"is constant (all voxels are {array.flat[0]})", hint="Check how it was exported."
        )


def _as_labels(array: Array) -> Array:
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (array == np.rint(array))
        if not whole.all():
            odd = array[~whole]
            raise FseftError(
                f"holds {pluralise(odd.size, 'voxel')} without a whole number, such as {odd[0]}",
                hint="Give a label map; resample labels with nearest neighbour.",
            )
    if array.min() < 0:
        raise FseftError(
            f"holds negative labels (lowest {array.min()})", hint="Number labels from 0 on."
        )
    labels = array.astype(np.min_scalar_type(int(array.max())))
    if labels.itemsize > 1 and (found := len(np.unique(labels[..., ::2, ::2, ::2]))) > _MOST_LABELS:
        raise FseftError(
            f"holds {found} and more different values: an image, not labels",
            hint="Give the label map.",
        )
    return labels
