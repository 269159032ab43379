"""The format `nifti`: one label map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import FormatSpec

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.volume.segmentation import Segmentation

SPEC = FormatSpec(
    name="nifti",
    factory="fseft.builtin.formats.nifti:write",
    summary="a label map, which fseft evaluate reads",
    suffix=".nii.gz",
)


def write(segmentation: Segmentation, path: Path) -> None:
    """Writes the label map with the header space of the scan.

    Args:
        segmentation: The segmentation.
        path: File to write.
    """
    from fseft.volume.image import write_labels

    write_labels(path, segmentation.labels, segmentation.geometry, scan=segmentation.scan[0])
