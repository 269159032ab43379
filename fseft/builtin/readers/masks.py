"""TotalSegmentator and its like: `CASE/ct.nii.gz` with one mask per structure, `CASE/segmentations/liver.nii.gz`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.readers.folders import images_in
from fseft.errors import FseftError, pluralise
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
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
    """Reader `masks`: structures are called after their files, and numbered in the order of their names."""

    def detects(self, folder: Path) -> bool:
        """Whether a folder in it has an image and a folder `segmentations`."""
        return any((image.parent / MASKS).is_dir() for image in _images(folder))

    def read(self, folder: Path) -> Dataset:
        """List the cases.

        Raises:
            FseftError: CT and MR lie side by side.
        """
        images = _images(folder)
        channels = sorted({CHANNELS[image.name] for image in images})
        if len(channels) > 1:
            raise FseftError("holds CT and MR", file=folder, hint="Make a dataset of each.")
        masks = {image: images_in(image.parent / MASKS) for image in images}
        names = sorted({name for found in masks.values() for name in found})
        values = {name: value for value, name in enumerate(names, start=1)}
        lacking = [
            image.parent.name for image, found in masks.items() if found and len(found) < len(names)
        ]
        some = f"{pluralise(len(lacking), 'case')} without the mask of some structure ({', '.join(lacking[:1])}, ...)"
        return Dataset(
            name=folder.name,
            reader="masks",
            channels=tuple(channels),
            labels=values,
            cases=tuple(
                Case(
                    name=image.parent.name,
                    images=(image,),
                    label={values[name]: path for name, path in found.items()} or None,
                )
                for image, found in masks.items()
            ),
            warnings=(f"{some}: it is background for adapt, unknown for pretrain",)
            if lacking
            else (),
        )


def _images(folder: Path) -> list[Path]:
    """One of each folder, in the order of their names."""
    cases = sorted(folder.iterdir()) if folder.is_dir() else []
    return [case / name for case in cases for name in CHANNELS if (case / name).is_file()]
