"""NRRD and MetaImage files, through SimpleITK; and what every use of SimpleITK needs."""

from __future__ import annotations

import math
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fseft.volume.geometry import Array

_NAMES = (
    "UInt8",
    "Int8",
    "UInt16",
    "Int16",
    "UInt32",
    "Int32",
    "UInt64",
    "Int64",
    "Float32",
    "Float64",
)
_CHUNK = 1 << 24


@contextmanager
def simpleitk() -> Iterator[Any]:
    """SimpleITK without its warnings on stderr; its errors become FseftErrors with their last line."""
    import SimpleITK as sitk  # noqa: N813  the name that everybody gives it

    shown = sitk.ProcessObject_GetGlobalWarningDisplay()
    sitk.ProcessObject_SetGlobalWarningDisplay(False)
    try:
        yield sitk
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise FseftError(
            f"ITK fails on it ({lines[-1]})", hint="Check or export the file again."
        ) from error
    finally:
        sitk.ProcessObject_SetGlobalWarningDisplay(shown)


def read(path: Path) -> tuple[Array, Array]:
    """Voxels (channel, z, y, x) and the affine to LPS mm.

    Raises:
        FseftError: As `describe`, or the file is truncated or damaged.
    """
    with simpleitk() as sitk:
        reader = _opened(sitk, path)
        shape, affine = _shape(reader), affine_of(reader)
        _check_deflated(path, math.prod(shape) * dtype_of(sitk, reader.GetPixelID()).itemsize)
        array: Array = sitk.GetArrayFromImage(reader.Execute())
    if reader.GetNumberOfComponents() > 1:
        array = np.moveaxis(array, -1, 0)
    return np.ascontiguousarray(array).reshape(shape), affine


def write(path: Path, array: Array, affine: Array) -> None:
    """Write (channel, z, y, x), compressed; several channels become a vector image.

    Raises:
        FseftError: ITK could not write.
    """
    columns = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(columns, axis=0)
    vector = array.shape[0] > 1
    with simpleitk() as sitk:
        voxels = np.ascontiguousarray(np.moveaxis(array, 0, -1)) if vector else array[0]
        image = sitk.GetImageFromArray(voxels, isVector=vector)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((columns / spacing).ravel().tolist())
        image.SetOrigin(affine[:3, 3].tolist())
        sitk.WriteImage(image, str(path), useCompression=True)


def affine_of(reader: Any) -> Array:
    """(4, 4): array index (z, y, x) to LPS mm, of a SimpleITK image or opened reader."""
    rank = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (rank, rank))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = (direction * reader.GetSpacing()[:3])[:, ::-1]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return affine


def dtype_of(sitk: Any, pixel_id: int) -> np.dtype[Any]:
    """The numpy dtype of a SimpleITK pixel type.

    Raises:
        FseftError: It is complex, or another type that is no number.
    """
    for name in _NAMES:
        if pixel_id in (getattr(sitk, f"sitk{name}"), getattr(sitk, f"sitkVector{name}")):
            return np.dtype(name.lower())
    kind = sitk.GetPixelIDValueAsString(pixel_id)
    raise FseftError(f"holds voxels of the type '{kind}'", hint="Save integers or floats.")


def pixel_id_of(sitk: Any, dtype: np.dtype[Any]) -> int:
    """The SimpleITK pixel type of a numpy dtype: the inverse of `dtype_of`."""
    return int(next(getattr(sitk, f"sitk{name}") for name in _NAMES if name.lower() == dtype.name))


def _opened(sitk: Any, path: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if "Unable to determine ImageIO" not in str(error):
            raise
        raise FseftError(f"is no {path.suffix} file", hint="Check what it holds.") from error
    return reader


def _shape(reader: Any) -> tuple[int, ...]:
    sizes, components = list(reader.GetSize()), reader.GetNumberOfComponents()
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) not in (3, 4) or (len(sizes) == 4 and components > 1):
        raise FseftError(
            f"has {len(sizes)} dimensions ({'×'.join(map(str, sizes))}), expected 3",
            hint="Save a 3D image, with channels along the fourth dimension.",
        )
    kind = "NRRD_kinds[pixel]"
    if reader.HasMetaDataKey(kind) and "color" in reader.GetMetaData(kind).lower():
        raise FseftError("is a colour (RGB) image", hint="Save one intensity per voxel.")
    return (sizes[3] if len(sizes) == 4 else components, *sizes[2::-1])


def _check_deflated(path: Path, needed: int) -> None:
    """ITK reads a compressed MetaImage that is damaged as noise, and only prints a line: look first."""
    if path.suffix.lower() != ".mha":
        return
    with path.open("rb") as file:
        header = _meta_header(file)
        if header.get("CompressedData", "")[:1].lower() not in ("t", "1"):
            return
        start, produced, stream = file.tell(), 0, zlib.decompressobj()
        try:
            while not stream.eof:
                chunk = stream.unconsumed_tail or file.read(_CHUNK)
                part = len(stream.decompress(chunk, _CHUNK))
                produced += part
                if not (chunk or part):
                    break
        except zlib.error as error:
            raise _damaged(str(error)) from error
        size = str(file.tell() - start - len(stream.unused_data))
    if not stream.eof or produced != needed:
        raise _damaged(f"it holds {produced} of {needed} bytes of voxels")
    if header.get("CompressedDataSize") != size:
        raise _damaged(
            f"CompressedDataSize is {header.get('CompressedDataSize', 'missing')}, not {size}"
        )


def _meta_header(file: IO[bytes]) -> dict[str, str]:
    """The keys of a MetaImage; the file is left where its voxels begin."""
    header: dict[str, str] = {}
    while "ElementDataFile" not in header and (line := file.readline(4096)):
        key, _, value = line.decode("latin-1").partition("=")
        header[key.strip()] = value.strip()
    return header


def _damaged(detail: str) -> FseftError:
    return FseftError(f"is truncated or damaged ({detail})", hint="Copy or export it again.")
