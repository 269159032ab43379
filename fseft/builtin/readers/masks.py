"""One mask per structure, as in TotalSegmentator: `CASE/ct.nii.gz` and `CASE/segmentations/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.readers.folders import images_in
from fseft.errors import FseftError, pluralise
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPEC = ReaderSpec(
    name="masks",
    factory="fseft.builtin.readers.masks:Reader",
    summary="TotalSegmentator: a folder per case with ct.nii.gz and one mask per structure",
    reference="https://doi.org/10.5281/zenodo.6802613",
)

CHANNELS = {"ct.nii.gz": "CT", "mri.nii.gz": "MR"}
MASKS = "segmentations"


class Reader:
    """Reader `masks`; structures are named after their files and numbered in the order of names."""

    def detects(self, folder: Path) -> bool:
        """Returns whether a subfolder contains an image and a folder `segmentations`."""
        return any((image.parent / MASKS).is_dir() for image in _images(folder))

    def read(self, folder: Path) -> Dataset:
        """Lists the cases.

        Raises:
            FseftError: The folder contains both CT and MR.
        """
        images = _images(folder)
        channels = sorted({CHANNELS[image.name] for image in images})
        if len(channels) > 1:
            hint = "Make a dataset of each."
            raise FseftError("contains CT and MR", file=folder, hint=hint)
        masks = {image: images_in(image.parent / MASKS) for image in images}
        names = sorted({name for files in masks.values() for name in files})
        values = {name: value for value, name in enumerate(names, start=1)}
        incomplete = [
            image.parent.name for image, files in masks.items() if 0 < len(files) < len(names)
        ]
        return Dataset(
            name=folder.name,
            reader="masks",
            channels=tuple(channels),
            labels=values,
            cases=tuple(_case(image, files, values) for image, files in masks.items()),
            warnings=_warn_incomplete(incomplete),
        )


def _images(folder: Path) -> list[Path]:
    """Returns the images of all subfolders, sorted by subfolder."""
    subfolders = sorted(folder.iterdir()) if folder.is_dir() else []
    candidates = [subfolder / name for subfolder in subfolders for name in CHANNELS]
    return [path for path in candidates if path.is_file()]


def _case(image: Path, masks: Mapping[str, Path], values: Mapping[str, int]) -> Case:
    """Returns a case; `values` maps the names of all structures to label values."""
    label = {values[name]: path for name, path in masks.items()}
    return Case(
        name=image.parent.name,
        images=(image,),
        label=label or None,
    )


def _warn_incomplete(cases: list[str]) -> tuple[str, ...]:
    if not cases:
        return ()
    subject = pluralise(len(cases), "case")
    warning = (
        f"{subject} without the mask of some structure ({cases[0]}, ...): "
        "it counts as not annotated there"
    )
    return (warning,)
