"""Errors for files whose header and voxels do not agree."""

from __future__ import annotations

from fseft.errors import FseftError

_PADDING = 1024  # bytes that writers append to fill a block


def damaged(detail: str) -> FseftError:
    """Returns the error for a truncated or damaged file."""
    return FseftError(f"is truncated or damaged ({detail})", hint="Copy or export it again.")


def check_surplus(surplus: int, plane: int) -> None:
    """Refuses a file with more voxels than its header describes.

    Args:
        surplus: Bytes behind the last voxel.
        plane: Bytes of the voxels of a plane.

    Raises:
        FseftError: At least a plane is left over, and more than padding.
    """
    if surplus >= max(plane, _PADDING):
        cause = f"contains {surplus} bytes behind the voxels that its header describes"
        raise FseftError(cause, hint="Correct the dimensions in the header, or export it again.")
