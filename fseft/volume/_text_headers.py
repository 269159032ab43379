"""Headers of NRRD and MetaImage files, for what ITK reads wrongly or replaces by a default."""

from __future__ import annotations

import zlib
from typing import IO, TYPE_CHECKING

from fseft.errors import FseftError
from fseft.volume._damage import check_surplus, damaged
from fseft.volume._logging import warn_once

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK_BYTES = 1 << 24
_ANY_WRAPPER = 47  # zlib: a gzip or a zlib stream
_SPACING = {
    ".mha": ("elementspacing", "elementsize"),
    ".nrrd": ("space directions", "spacings"),
}
_ORIENTATION = {
    ".mha": ("transformmatrix", "rotation", "orientation"),
    ".nrrd": ("space", "space dimension"),
}


def check_header(path: Path, size: int, plane: int) -> None:
    """Refuses a file without spacing, or with more or fewer voxels than its header describes.

    Args:
        path: NRRD or MetaImage file.
        size: Bytes of all voxels according to the header.
        plane: Bytes of the voxels of a plane.

    Raises:
        FseftError: ITK would read noise, a part, or a spacing of 1 mm.
    """
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        header = _read_header(file, "=" if suffix == ".mha" else ":")
        if not any(key in header for key in _SPACING[suffix]):
            cause = "has no voxel spacing in its header"
            raise FseftError(cause, hint="Export it again, with its spacing.")
        if not any(key in header for key in _ORIENTATION[suffix]):
            warn_once(f"{path}: its header has no orientation; LPS is assumed")
        if suffix == ".mha":
            _check_metaimage(path, file, header, size, plane)
        else:
            _check_nrrd(path, file, header, size, plane)


def _read_header(file: IO[bytes], separator: str) -> dict[str, str]:
    """Returns the fields in lower case; the file position is at the voxels afterwards."""
    header: dict[str, str] = {}
    while "elementdatafile" not in header and (line := file.readline(1 << 16).strip()):
        key, _, value = line.decode("latin-1").partition(separator)
        header[key.strip().lower()] = value.strip()
    return header


def _check_metaimage(
    path: Path, file: IO[bytes], header: dict[str, str], size: int, plane: int
) -> None:
    """ITK reads the compressed voxels of a damaged file as noise, with a mere message."""
    data_file = header.get("elementdatafile", "")
    if data_file.lower() != "local":  # ITK may crash if it is the name of no file
        cause = f"has its voxels in another file ({data_file[:60]!r})"
        raise FseftError(cause, hint="Save header and voxels in one file.")
    if header.get("compresseddata", "")[:1].lower() not in ("t", "1"):
        check_surplus(path.stat().st_size - file.tell() - size, plane)
        return
    compressed, decompressed = _decompressed_size(file)
    if decompressed != size:
        raise damaged(f"it contains {decompressed} of {size} bytes of voxels")
    declared = header.get("compresseddatasize", "missing")
    if declared != str(compressed):
        raise damaged(f"CompressedDataSize is {declared}, not {compressed}")


def _check_nrrd(path: Path, file: IO[bytes], header: dict[str, str], size: int, plane: int) -> None:
    encoding = header.get("encoding", "").lower()
    if "data file" in header or "datafile" in header:
        return
    if encoding == "raw":
        check_surplus(path.stat().st_size - file.tell() - size, plane)
    elif encoding in ("gzip", "gz"):
        check_surplus(_decompressed_size(file)[1] - size, plane)


def _decompressed_size(file: IO[bytes]) -> tuple[int, int]:
    """Returns the compressed and decompressed size of a stream at the current position."""
    start, decompressed, stream = file.tell(), 0, zlib.decompressobj(_ANY_WRAPPER)
    try:
        while not stream.eof:
            chunk = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
            part = stream.decompress(chunk, _CHUNK_BYTES)
            decompressed += len(part)
            if not (chunk or part):
                raise damaged(f"the stream ends after {decompressed} bytes of voxels")
    except zlib.error as error:
        raise damaged(str(error)) from error
    return file.tell() - start - len(stream.unused_data), decompressed
