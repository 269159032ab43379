"""Lengths of DICOM elements, which GDCM believes: one damaged byte makes it allocate gigabytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.volume._damage import damaged

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

_PREAMBLE = 132
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Value representations with a length of four bytes (DICOM PS3.5, 7.1.2)."""
_UNDEFINED = 0xFFFFFFFF
_TRANSFER_SYNTAX, _BIG_ENDIAN = b"\x02\0\x10\0", b"1.2.840.10008.1.2.2"


def check_lengths(path: Path) -> None:
    """Refuses a file with an element that is longer than the file.

    Elements are followed from the first one to the first of undefined length, or to the first that
    has no explicit value representation. Files without a preamble and big-endian data are not
    checked.

    Raises:
        FseftError: An element is longer than what is left of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(_PREAMBLE)[-4:] != b"DICM":
            return
        while not _begins_big_endian(file) and (length := _next_length(file)) is not None:
            left = size - file.tell()
            if length > left:
                raise damaged(f"an element of {length} bytes, where {left} are left")
            file.seek(length, 1)


def _begins_big_endian(file: IO[bytes]) -> bool:
    """Returns whether the next element is the transfer syntax of big-endian data."""
    start = file.tell()
    head = file.read(8)
    value = file.read(int.from_bytes(head[6:], "little")) if head[:4] == _TRANSFER_SYNTAX else b""
    file.seek(start)
    return value.rstrip(b"\0") == _BIG_ENDIAN


def _next_length(file: IO[bytes]) -> int | None:
    """Reads the head of an element, and returns its length if that is known."""
    head = file.read(8)
    representation = head[4:6]
    if len(head) < 8 or not representation.isalpha() or not representation.isupper():
        return None
    if representation not in _LONG:
        return int.from_bytes(head[6:], "little")
    length = int.from_bytes(file.read(4), "little")
    return None if length == _UNDEFINED else length
