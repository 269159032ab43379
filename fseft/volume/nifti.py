"""NIfTI-1 and NIfTI-2 files, read and written without ITK.

ITK refuses NIfTI-2 and oblique grids that are not exactly perpendicular, crashes on some 5D files, takes the
voxels of a.nii for a.nii.gz where both exist, and reports success when a full disk cut the file it wrote.
"""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from fseft.errors import FseftError

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.volume.geometry import Array

_DTYPES = {
    2: "u1", 256: "i1", 512: "u2", 4: "i2", 768: "u4", 8: "i4", 1280: "u8", 1024: "i8", 16: "f4", 64: "f8",
}  # fmt: skip
_COLOURS = (128, 2304)
_COMPLEX = (32, 1792, 2048)
_UNIT_MM = {1: 1000.0, 3: 1e-3}  # metres and microns; anything else is taken as mm
_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CHUNK = 1 << 24
_MAX_DEFLATE = 1100  # gzip cannot shrink further: a header that asks for more voxels is damaged

# The same names for both versions (https://nifti.nimh.nih.gov): offset and numpy format of what is used.
_NIFTI1 = {
    "sizeof_hdr": (0, "i4"), "dim": (40, "8i2"), "datatype": (70, "i2"), "bitpix": (72, "i2"),
    "pixdim": (76, "8f4"), "vox_offset": (108, "f4"), "scl_slope": (112, "f4"), "scl_inter": (116, "f4"),
    "xyzt_units": (123, "u1"), "qform_code": (252, "i2"), "sform_code": (254, "i2"), "quatern": (256, "3f4"),
    "qoffset": (268, "3f4"), "srow": (280, "(3,4)f4"), "magic": (344, "S4"),
}  # fmt: skip
_NIFTI2 = {
    "sizeof_hdr": (0, "i4"), "magic": (4, "S8"), "datatype": (12, "i2"), "bitpix": (14, "i2"),
    "dim": (16, "8i8"), "pixdim": (104, "8f8"), "vox_offset": (168, "i8"), "scl_slope": (176, "f8"),
    "scl_inter": (184, "f8"),
    "qform_code": (344, "i4"), "sform_code": (348, "i4"), "quatern": (352, "3f8"), "qoffset": (376, "3f8"),
    "srow": (400, "(3,4)f8"), "xyzt_units": (500, "i4"),
}  # fmt: skip


def _record(fields: dict[str, tuple[int, str]], size: int) -> np.dtype[Any]:
    offsets, formats = zip(*fields.values(), strict=True)
    spec: Any = {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size}
    record: np.dtype[Any] = np.dtype(spec)
    return record


_RECORDS = {348: _record(_NIFTI1, 348), 540: _record(_NIFTI2, 540)}


def describe(path: Path) -> tuple[tuple[int, ...], Array, np.dtype[Any]]:
    """Shape (channel, k, j, i of the file), affine from array index to LPS mm and dtype, without the voxels.

    Raises:
        FseftError: The file is no NIfTI image of 3 or 4 dimensions with real numbers.
    """
    with _open(path) as stream:
        header = _header(stream)
    return _shape(header), _affine(header, path), _scaled_dtype(header)


def read(path: Path) -> tuple[Array, Array]:
    """Voxels (channel, k, j, i of the file), scaled as the header says, and the affine to LPS mm.

    Raises:
        FseftError: As `describe`, or the file is truncated or damaged.
    """
    with _open(path) as stream:
        header = _header(stream)
        shape, affine = _shape(header), _affine(header, path)
        stored = _stored_dtype(header)
        needed = math.prod(shape) * stored.itemsize
        offset, most = header["vox_offset"], path.stat().st_size * _MAX_DEFLATE
        if not (0 <= offset <= most and needed <= most):
            raise _truncated(
                f"its header asks for {needed} bytes of voxels from byte {offset:.0f} on"
            )
        try:
            stream.seek(int(offset))
            voxels = _voxels(stream, needed).view(stored).reshape(shape)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _truncated(str(error)) from error
    return _scaled(voxels, header), affine


def write(path: Path, array: Array, affine: Array) -> None:
    """Write (channel, i, j, k) as NIfTI-1, gzipped by the suffix; several channels are the fourth dimension.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    start = _new_header(array, affine).tobytes() + bytes(4)  # no extensions
    voxels = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    with path.open("wb") as file:
        if path.suffix.lower() != ".gz":
            file.writelines((start, voxels.data))
            return
        # No name and no time inside, so that equal images are equal files.
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=5, fileobj=file, mtime=0
        ) as packed:
            packed.write(start)
            packed.write(voxels.data)


def _new_header(array: Array, affine: Array) -> Array:
    header = np.zeros((), dtype=_RECORDS[348].newbyteorder("<"))
    sizes = array.shape[::-1] if array.shape[0] > 1 else array.shape[:0:-1]
    ras = _LPS_RAS @ affine[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(ras[:3, :3], axis=0)
    quaternion, handedness = _quaternion(ras[:3, :3] / spacing)
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 352
    header["dim"] = [len(sizes), *sizes, *[1] * (7 - len(sizes))]
    header["pixdim"] = [handedness, *spacing, 1, 1, 1, 1]
    header["datatype"] = next(
        code for code, name in _DTYPES.items() if np.dtype(name) == array.dtype
    )
    header["bitpix"], header["scl_slope"], header["xyzt_units"] = 8 * array.dtype.itemsize, 1, 2
    header["qform_code"] = header["sform_code"] = 1
    header["quatern"], header["qoffset"], header["srow"] = quaternion, ras[:3, 3], ras[:3]
    return header


def _open(path: Path) -> IO[bytes]:
    """By content, not by name: a plain file is often named .nii.gz and the other way round."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def _header(stream: IO[bytes]) -> Array:
    try:
        start = stream.read(540)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _truncated(str(error)) from error
    for order in "<>":
        size = int(np.frombuffer(start[:4].ljust(4), f"{order}i4")[0])
        if size in _RECORDS and len(start) >= size:
            header = np.frombuffer(start[:size], _RECORDS[size].newbyteorder(cast("Any", order)))[0]
            if header["magic"][:2] == b"n+":
                return cast("Array", header)
            raise FseftError(
                "is a NIfTI header without voxels", hint="Convert the pair .hdr/.img to .nii.gz."
            )
    raise FseftError(
        "is no NIfTI file", hint="Check what it holds: its first bytes are no NIfTI header."
    )


def _shape(header: Array) -> tuple[int, ...]:
    rank = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : rank + 1]]
    if not 1 <= rank <= 7 or min(sizes) < 1:
        cause = f"has a damaged NIfTI header (dimensions {header['dim'].tolist()})"
        raise FseftError(cause, hint="Copy or export it again.")
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) not in (3, 4):
        raise FseftError(
            f"has {len(sizes)} dimensions ({'×'.join(map(str, sizes))}), expected 3 or 4",
            hint="Save a 3D image, with channels along the fourth dimension.",
        )
    return (*sizes[3:], *sizes[2::-1]) if len(sizes) == 4 else (1, *sizes[::-1])


def _stored_dtype(header: Array) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in _COLOURS:
        raise FseftError("is a colour (RGB) image", hint="Save one intensity per voxel.")
    if code in _COMPLEX:
        raise FseftError("holds complex numbers", hint="Save magnitude or real part.")
    if code not in _DTYPES:
        raise FseftError(
            f"has the NIfTI datatype {code}, which is not read", hint="Save integers or floats."
        )
    return np.dtype(_DTYPES[code]).newbyteorder(header["dim"].dtype.byteorder)


def _voxels(stream: IO[bytes], needed: int) -> Array:
    """Read in chunks into the one buffer, then to the end: only there does gzip check its sum."""
    buffer = np.empty(needed, np.uint8)
    filled = 0
    while filled < needed:
        got = stream.readinto(buffer[filled : filled + _CHUNK].data)  # type: ignore[attr-defined]
        if not got:
            raise _truncated(f"it holds {filled} of {needed} bytes of voxels")
        filled += got
    while stream.read(_CHUNK):
        pass
    return buffer


def _slope(header: Array) -> tuple[float, float] | None:
    """Slope and intercept; None where there is nothing to do (0 and NaN mean: not set)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite([slope, intercept]).all() or (slope, intercept) == (1, 0):
        return None
    return slope, intercept


def _scaled_dtype(header: Array) -> np.dtype[Any]:
    """Whole numbers stay whole if slope and intercept are, in a type that holds all that may be stored."""
    stored, scaling = _stored_dtype(header).newbyteorder("="), _slope(header)
    if scaling is None or stored.kind == "f":
        return stored
    if not (scaling[0].is_integer() and scaling[1].is_integer()):
        return np.dtype(np.float32 if stored.itemsize <= 2 else np.float64)
    slope, intercept = map(int, scaling)
    ends = [slope * int(end) for end in (np.iinfo(stored).min, np.iinfo(stored).max)]
    values = [slope, intercept, *ends, *(end + intercept for end in ends)]
    if min(values) < -(2**63) or max(values) >= 2**63:
        return np.dtype(np.float64)
    return np.result_type(stored, *map(np.min_scalar_type, values))


def _scaled(stored: Array, header: Array) -> Array:
    if not stored.dtype.isnative:
        stored.byteswap(inplace=True)
    stored = stored.view(stored.dtype.newbyteorder("="))
    scaling, dtype = _slope(header), _scaled_dtype(header)
    if scaling is None:
        return stored
    scaled = stored.astype(dtype)
    scaled *= dtype.type(scaling[0])
    scaled += dtype.type(scaling[1])
    return scaled


def _affine(header: Array, path: Path) -> Array:
    """Array index (k, j, i of the file) to LPS mm: the sform, else the qform, else spacing alone."""
    ras = np.eye(4)
    if header["sform_code"] > 0:
        ras[:3] = header["srow"]
    else:
        ras[:3, :3] = np.abs(header["pixdim"][1:4].astype(np.float64)) * np.eye(3)
        if header["qform_code"] > 0:
            ras[:3, :3] = _rotation(header) @ ras[:3, :3]
            ras[:3, 3] = header["qoffset"]
        else:
            warnings.warn(f"{path}: no orientation in its NIfTI header; taken as RAS", stacklevel=2)
    ras[:3] *= _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    affine: Array = (_LPS_RAS @ ras)[:, [2, 1, 0, 3]]
    return affine


def _rotation(header: Array) -> Array:
    """The rotation of the qform; the third axis is mirrored where pixdim[0] is -1."""
    vector = header["quatern"].astype(np.float64)
    rest = 1 - float(vector @ vector)
    # As nifti1_io does: below rounding this is half a turn, and its vector has length 1.
    a = np.sqrt(rest) if rest >= 1e-7 else 0.0
    b, c, d = vector if rest >= 1e-7 else vector / np.linalg.norm(vector)
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    rotation[:, 2] *= -1 if header["pixdim"][0] < 0 else 1
    return rotation


def _quaternion(direction: Array) -> tuple[Array, int]:
    """The inverse of `_rotation`: (b, c, d) with a >= 0, and the sign of the third axis."""
    handedness = 1 if np.linalg.det(direction) > 0 else -1
    r = direction * [1, 1, handedness]
    # The quaternion is the main eigenvector of this matrix (Bar-Itzhack 2000), for any angle of rotation.
    k = np.array([
        [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
        [0, r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[0, 2] + r[2, 0]],
        [0, 0, r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2]],
        [0, 0, 0, r[2, 2] - r[0, 0] - r[1, 1]],
    ])  # fmt: skip
    q = np.linalg.eigh(k, UPLO="U")[1][:, -1]
    return (q if q[0] >= 0 else -q)[1:], handedness


def _truncated(detail: str) -> FseftError:
    return FseftError(f"is truncated or damaged ({detail})", hint="Copy or export it again.")
