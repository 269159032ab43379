"""The format `masks`: a folder with one binary mask per structure, as TotalSegmentator writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fseft.plugin import FormatSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fseft.volume.segmentation import Segmentation

SPEC = FormatSpec(
    name="masks",
    factory="fseft.builtin.formats.masks:write",
    summary="one mask per structure, in the layout of TotalSegmentator",
    suffix="/segmentations",
)
_REFUSED = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]|^[. ]+|[. ]+$')  # by Windows, macOS or Linux
_MAX_BYTES = 200  # of 255, without the suffix


def write(segmentation: Segmentation, path: Path) -> None:
    """Writes `<structure>.nii.gz` for every structure, also for those without a voxel.

    Args:
        segmentation: The segmentation.
        path: Folder to create.
    """
    from fseft.volume.image import write_labels

    path.mkdir()
    for name, file in file_names(segmentation.structures).items():
        mask = segmentation.mask(name)
        write_labels(path / file, mask, segmentation.geometry, scan=segmentation.scan[0])


def file_names(structures: Iterable[str]) -> dict[str, str]:
    """Returns a file name for each structure; characters that a file system refuses become `_`.

    Names that would be equal, also to a file system that ignores case, get a number.

    Examples:
        >>> file_names(["vein/artery", "vein:artery"])
        {'vein/artery': 'vein_artery.nii.gz', 'vein:artery': 'vein_artery_2.nii.gz'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for structure in structures:
        stem = _REFUSED.sub("_", structure).encode()[:_MAX_BYTES].decode(errors="ignore")
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names[structure] = f"{name}.nii.gz"
    return names
