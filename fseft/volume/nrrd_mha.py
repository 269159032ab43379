"""NRRD and MetaImage files through SimpleITK, and helpers for other users of SimpleITK."""

from __future__ import annotations

import locale
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError
from fseft.volume._text_headers import check_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fseft.volume.geometry import Array

_PIXEL_TYPES = (
    *("UInt8", "UInt16", "UInt32", "UInt64", "Int8", "Int16", "Int32", "Int64"),
    *("Float32", "Float64"),
)
_COLOUR_KEY = "NRRD_kinds[pixel]"


@contextmanager
def simpleitk() -> Iterator[Any]:
    """Provides SimpleITK without its warnings on stderr; its errors are raised as FseftError.

    The locale of the process stays as it was: GDCM sets it to "C", in which Python reads text files
    as ASCII.

    Yields:
        The module `SimpleITK`.

    Raises:
        FseftError: ITK raised an error within the context.
    """
    import SimpleITK as sitk  # noqa: N813  the name that everybody uses

    character_set = locale.setlocale(locale.LC_CTYPE)
    previous = sitk.ProcessObject_GetGlobalWarningDisplay()
    sitk.ProcessObject_SetGlobalWarningDisplay(False)
    try:
        yield sitk
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        hint = "Check the file, or export it again."
        raise FseftError(f"causes an error of ITK ({lines[-1]})", hint=hint) from error
    finally:
        sitk.ProcessObject_SetGlobalWarningDisplay(previous)
        locale.setlocale(locale.LC_CTYPE, character_set)


def read(path: Path) -> tuple[Array, Array]:
    """Reads the voxels and the affine of an NRRD or MetaImage file.

    Args:
        path: The file.

    Returns:
        The voxels (channel, z, y, x) and the (4, 4) affine from the array index (z, y, x) to LPS
        mm.

    Raises:
        FseftError: The file is not an image of 3 dimensions, or 4 with channels, of real numbers,
            or is truncated or damaged.
    """
    with simpleitk() as sitk:
        reader = _open(sitk, path)
        shape, affine = _array_shape(reader), affine_of(reader)
        dtype = dtype_of(sitk, reader.GetPixelID())
        size, plane = (math.prod(sides) * dtype.itemsize for sides in (shape, shape[-2:]))
        check_header(path, size, plane)
        array: Array = sitk.GetArrayFromImage(reader.Execute())
    if reader.GetNumberOfComponents() > 1:
        array = np.moveaxis(array, -1, 0)
    return np.ascontiguousarray(array).reshape(shape), affine


def write(
    path: Path, array: Array, affine: Array, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a compressed NRRD or MetaImage file; several channels become a vector image.

    Args:
        path: The file; its suffix decides the format.
        array: (channel, z, y, x).
        affine: (4, 4), from the array index (z, y, x) to LPS mm.
        metadata: More fields of the header.

    Raises:
        FseftError: ITK could not write the file.
    """
    columns = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(columns, axis=0)
    is_vector = array.shape[0] > 1
    with simpleitk() as sitk:
        voxels = np.ascontiguousarray(np.moveaxis(array, 0, -1)) if is_vector else array[0]
        image = sitk.GetImageFromArray(voxels, isVector=is_vector)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((columns / spacing).ravel().tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        for key, value in (metadata or {}).items():
            image.SetMetaData(key, value)
        sitk.WriteImage(image, str(path), useCompression=True)


def affine_of(reader: Any) -> Array:
    """Returns the (4, 4) affine from (z, y, x) to LPS mm of a SimpleITK image or opened reader."""
    rank = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (rank, rank))[:3, :3]
    columns = direction * reader.GetSpacing()[:3]
    affine = np.eye(4)
    affine[:3, :3] = columns[:, ::-1]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return affine


def dtype_of(sitk: Any, pixel_id: int) -> np.dtype[Any]:
    """Returns the NumPy dtype of a SimpleITK pixel type.

    Args:
        sitk: The module `SimpleITK`.
        pixel_id: Pixel type of an image, of one component or several.

    Raises:
        FseftError: Pixels are complex, or not numbers.
    """
    for name in _PIXEL_TYPES:
        scalar, vector = getattr(sitk, f"sitk{name}"), getattr(sitk, f"sitkVector{name}")
        if pixel_id in (scalar, vector):
            return np.dtype(name.lower())
    kind = sitk.GetPixelIDValueAsString(pixel_id)
    raise FseftError(f"contains voxels of the type '{kind}'", hint="Save integers or floats.")


def pixel_id_of(sitk: Any, dtype: np.dtype[Any]) -> int:
    """Returns the SimpleITK pixel type of a NumPy dtype, the inverse of `dtype_of`.

    Args:
        sitk: The module `SimpleITK`.
        dtype: The dtype.
    """
    names = {name.lower(): name for name in _PIXEL_TYPES}
    pixel_id = getattr(sitk, f"sitk{names[dtype.name]}")
    return int(pixel_id)


def _open(sitk: Any, path: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "Unable to determine ImageIO" not in str(error):
            raise
        cause = f"is not a {path.suffix} file"
        raise FseftError(cause, hint="Check its content.") from error
    return reader


def _array_shape(reader: Any) -> tuple[int, ...]:
    """Returns the shape (channel, z, y, x) without trailing file axes of length 1."""
    sizes, components = list(reader.GetSize()), reader.GetNumberOfComponents()
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) not in (3, 4) or (len(sizes) == 4 and components > 1):
        raise FseftError(
            f"has {len(sizes)} dimensions ({'×'.join(map(str, sizes))}), expected 3",
            hint="Save a 3D image, with channels along the fourth dimension.",
        )
    has_kind = reader.HasMetaDataKey(_COLOUR_KEY)
    if has_kind and "color" in reader.GetMetaData(_COLOUR_KEY).lower():
        raise FseftError("is a colour (RGB) image", hint="Save one intensity per voxel.")
    channels = sizes[3] if len(sizes) == 4 else components
    return (channels, *sizes[2::-1])
