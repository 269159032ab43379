"""NIfTI-1 and NIfTI-2 files through nibabel, with guards against damaged files.

nibabel parses and writes the headers. The voxels are read in chunks, because nibabel allocates as
many bytes as a header promises and does not reach the checksum at the end of a gzip stream.
Integers that a header rescales by whole numbers stay integers, whereas nibabel returns float64.
"""

from __future__ import annotations

import gzip
import math
import zlib
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from fseft.errors import FseftError
from fseft.lazy_imports import import_lazily
from fseft.volume._damage import check_surplus, damaged
from fseft.volume._logging import warn_once
from fseft.volume.geometry import shear_degrees

if TYPE_CHECKING:
    from pathlib import Path

    from nibabel import Nifti1Header

    from fseft.volume.geometry import Array

_COLOUR_CODES = (128, 2304)
_COMPLEX_CODES = (32, 1792, 2048)
_REAL_CODES = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # (u)int8 to (u)int64, float32, float64
_SPACE_FIELDS = (
    *("qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
_MM_PER_UNIT = {1: 1000.0, 3: 1e-3}  # metres and microns; all other codes are read as mm
_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CHUNK_BYTES = 1 << 24
_MAX_COMPRESSION = 1100  # of gzip: a header that promises more voxels is damaged
_HALF_TURN = (
    1e-7  # a squared real part of a quaternion below this is rounding error, as in nifti1_io
)
_ROUNDING_DEGREES = 0.01
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


def read(path: Path) -> tuple[Array, Array]:
    """Reads the voxels and the affine of a NIfTI file.

    Args:
        path: Plain or gzipped, recognised by content.

    Returns:
        The voxels (channel, k, j, i of the file), rescaled as the header says, and the (4, 4)
        affine from the array index (k, j, i) to LPS mm.

    Raises:
        FseftError: The file is not a NIfTI image of 3 or 4 dimensions with real numbers, or is
            truncated or damaged.
    """
    with _open(path) as stream:
        header = _read_header(stream)
        shape, stored = _array_shape(header), _stored_dtype(header)
        affine = _affine(header, path)
        offset, size = float(header["vox_offset"]), math.prod(shape) * stored.itemsize
        limit = path.stat().st_size * _MAX_COMPRESSION
        if not (header.sizeof_hdr <= offset <= limit and size <= limit):
            raise damaged(f"its header promises {size} bytes of voxels at byte {offset:.0f}")
        try:
            stream.seek(int(offset))
            plane = math.prod(shape[-2:]) * stored.itemsize
            voxels = _read_bytes(stream, size, plane).view(stored).reshape(shape)
        except _DAMAGE as error:
            raise damaged(str(error)) from error
    return _rescaled(voxels, header), affine


def slope(path: Path) -> float:
    """Returns the factor by which a NIfTI file multiplies stored integers; 0 without one.

    Raises:
        FseftError: The header is damaged, or the type of voxels is not supported.
    """
    with _open(path) as stream:
        header = _read_header(stream)
    rescaling = _rescaling(header)
    is_integer = _stored_dtype(header).kind in "iu"
    return abs(rescaling[0]) if rescaling and is_integer else 0.0


def write(path: Path, array: Array, affine: Array, scan: Path | None = None) -> None:
    """Writes a NIfTI-1 file, gzipped if the suffix is `.gz`.

    Args:
        path: The file.
        array: (channel, i, j, k); several channels become the fourth dimension of the file.
        affine: (4, 4), from the array index (i, j, k) to LPS mm.
        scan: NIfTI file on the same grid, whose qform and sform are copied instead.

    Raises:
        OSError: The disk is full, or the folder is not writable.
    """
    header = _new_header(array, affine)
    if scan is not None:
        _copy_space(header, scan)
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    with path.open("wb") as file:
        if path.suffix.lower() != ".gz":
            header.write_to(file)
            file.write(voxels.data)
            return
        # The stream stores neither name nor time, so that equal images are equal files.
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=5, fileobj=file, mtime=0
        ) as packed:
            header.write_to(packed)
            packed.write(voxels.data)


def _new_header(array: Array, affine: Array) -> Nifti1Header:
    import_lazily("nibabel")
    from nibabel import Nifti1Header

    file_shape = array.shape[::-1] if array.shape[0] > 1 else array.shape[:0:-1]
    ras = _LPS_FROM_RAS @ affine[:, [2, 1, 0, 3]]
    header = Nifti1Header(endianness="<")
    header.set_data_shape(file_shape)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    is_sheared = shear_degrees(affine) > _ROUNDING_DEGREES  # which no quaternion describes
    header.set_qform(ras, code="unknown" if is_sheared else "scanner")
    header.set_sform(ras, code="scanner")
    return header


def _copy_space(header: Nifti1Header, scan: Path) -> None:
    """Copies everything that places the voxels of a scan in space, as stored.

    Programs disagree on headers with contradictory, sheared or missing forms; with equal fields,
    each of them shows both files in the same place.
    """
    with _open(scan) as stream:
        source = _read_header(stream)
    for field in _SPACE_FIELDS:
        header[field] = source[field]
    header["pixdim"][:4] = source["pixdim"][:4]


def _open(path: Path) -> IO[bytes]:
    """Opens for reading; gzip is recognised by content, as plain files are often named .nii.gz."""
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if gzipped else path.open("rb")


def _read_header(stream: IO[bytes]) -> Nifti1Header:
    import_lazily("nibabel")
    from nibabel import Nifti1Header, Nifti2Header

    try:
        block = stream.read(Nifti2Header.sizeof_hdr)
    except _DAMAGE as error:
        raise damaged(str(error)) from error
    for kind, order in ((kind, order) for kind in (Nifti1Header, Nifti2Header) for order in "<>"):
        size = int(np.frombuffer(block[:4].ljust(4), f"{order}i4")[0])
        if size != kind.sizeof_hdr or len(block) < size:
            continue
        # Unchecked: nibabel would print its findings, and refuse what can be read.
        header = kind(block[:size], order, check=False)
        if header["magic"].item()[:2] == b"n+":
            return header
        raise FseftError(
            "is a NIfTI header without voxels", hint="Convert the pair .hdr/.img to .nii.gz."
        )
    raise FseftError(
        "is not a NIfTI file", hint="Check its content: it does not begin with a NIfTI header."
    )


def _array_shape(header: Nifti1Header) -> tuple[int, ...]:
    """Returns the shape (channel, k, j, i) without trailing file axes of length 1."""
    rank, *sizes = header["dim"].tolist()
    if not 1 <= rank <= 7 or min(sizes[:rank]) < 1:
        cause = f"has a damaged NIfTI header (dimensions {header['dim'].tolist()})"
        raise FseftError(cause, hint="Copy or export it again.")
    sizes = sizes[:rank]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) not in (3, 4):
        raise FseftError(
            f"has {len(sizes)} dimensions ({'×'.join(map(str, sizes))}), expected 3 or 4",
            hint="Save a 3D image, with channels along the fourth dimension.",
        )
    return (*sizes[3:], *sizes[2::-1]) if len(sizes) == 4 else (1, *sizes[::-1])


def _stored_dtype(header: Nifti1Header) -> np.dtype[Any]:
    """Returns the dtype of the voxels in the file, in its byte order."""
    code = int(header["datatype"])
    if code in _COLOUR_CODES:
        raise FseftError("is a colour (RGB) image", hint="Save one intensity per voxel.")
    if code in _COMPLEX_CODES:
        raise FseftError("contains complex numbers", hint="Save magnitude or real part.")
    if code not in _REAL_CODES:
        raise FseftError(
            f"has the unsupported NIfTI datatype {code}", hint="Save integers or floats."
        )
    return cast("np.dtype[Any]", header.get_data_dtype())


def _read_bytes(stream: IO[bytes], size: int, plane: int) -> Array:
    """Reads in chunks into one buffer, and then to the end, where gzip verifies its checksum.

    Args:
        stream: File, at its first voxel.
        size: Bytes of all voxels.
        plane: Bytes of the voxels of a plane.
    """
    buffer = np.empty(size, np.uint8)
    filled = 0
    while filled < size:
        part = buffer[filled : filled + _CHUNK_BYTES].data
        count = stream.readinto(part)  # type: ignore[attr-defined]
        if not count:
            raise damaged(f"it contains {filled} of {size} bytes of voxels")
        filled += count
    surplus = 0
    while chunk := stream.read(_CHUNK_BYTES):
        surplus += len(chunk)
    check_surplus(surplus, plane)
    return buffer


def _rescaling(header: Nifti1Header) -> tuple[float, float] | None:
    """Returns slope and intercept, or None for the identity and for values that mean "not set"."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite([slope, intercept]).all() or (slope, intercept) == (1, 0):
        return None
    return slope, intercept


def _rescaled_dtype(stored: np.dtype[Any], slope: float, intercept: float) -> np.dtype[Any]:
    """Returns an integer type if the rescaled values are integers, large enough for all of them."""
    if stored.kind == "f":
        return stored
    if not (slope.is_integer() and intercept.is_integer()):
        return np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)
    limits = np.iinfo(stored)
    scaled = [int(slope) * int(limit) for limit in (limits.min, limits.max)]
    values = [int(slope), int(intercept), *scaled, *(value + int(intercept) for value in scaled)]
    if min(values) < -(2**63) or max(values) >= 2**63:
        return np.dtype(np.float64)
    return np.result_type(stored, *map(np.min_scalar_type, values))


def _rescaled(stored: Array, header: Nifti1Header) -> Array:
    """Applies slope and intercept, in the native byte order."""
    if not stored.dtype.isnative:
        stored.byteswap(inplace=True)
    native = stored.view(stored.dtype.newbyteorder("="))
    rescaling = _rescaling(header)
    if rescaling is None:
        return native
    slope, intercept = rescaling
    dtype = _rescaled_dtype(native.dtype, slope, intercept)
    values = native.astype(dtype)
    values *= dtype.type(slope)
    values += dtype.type(intercept)
    return values


def _affine(header: Nifti1Header, path: Path) -> Array:
    """Returns the (4, 4) affine from (k, j, i) to LPS mm by sform, qform or spacing."""
    if header["sform_code"] > 0:
        ras = np.asarray(header.get_sform(), np.float64)
    elif header["qform_code"] > 0:
        ras = _qform(header)
    else:
        ras = np.diag([*np.abs(header["pixdim"][1:4]), 1.0]).astype(np.float64)
        warn_once(f"{path}: its NIfTI header has no orientation; RAS is assumed")
    ras[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    with np.errstate(all="ignore"):  # a damaged header; its grid is refused later
        affine: Array = (_LPS_FROM_RAS @ ras)[:, [2, 1, 0, 3]]
    return affine


def _qform(header: Nifti1Header) -> Array:
    """Returns the (4, 4) affine of the qform to RAS.

    nibabel's `get_qform` refuses quaternions longer than 1 and a `pixdim[0]` of 0, which files
    contain, and takes rounding errors of a half turn for an angle; ITK and nifti1_io do not.
    """
    from nibabel.quaternions import quat2mat

    vector = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    squared_real = 1 - float(vector @ vector)
    real = math.sqrt(squared_real) if squared_real >= _HALF_TURN else 0.0
    spacing = np.abs(header["pixdim"][1:4]).astype(np.float64)
    if header["pixdim"][0] < 0:
        spacing[2] *= -1  # the third axis is mirrored
    ras = np.eye(4)
    with np.errstate(all="ignore"):  # a damaged header; its grid is refused later
        ras[:3, :3] = quat2mat([real, *vector]) * spacing
    ras[:3, 3] = [header[f"qoffset_{axis}"] for axis in "xyz"]
    return ras
