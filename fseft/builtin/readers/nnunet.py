"""nnU-Net v2: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and `dataset.json`.

With a single channel, `_0000` is optional, so that a `dataset.json` names the structures of bare
folders too. A list `dataset` of images and labels in `dataset.json` replaces the folders.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from fseft import dataset_json
from fseft.builtin.readers.folders import (
    IMAGES,
    LABELS,
    by_channel,
    check_channels,
    images_in,
    listed_file,
    meanings,
    missing_files_error,
    paired,
    with_unnumbered,
)
from fseft.dataset_json import ListedCase, NnunetDeclaration, read_declaration
from fseft.errors import FseftError
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPEC = ReaderSpec(
    name="nnunet",
    factory="fseft.builtin.readers.nnunet:Reader",
    summary="nnU-Net raw dataset: imagesTr, labelsTr and dataset.json with channel names",
    reference="https://github.com/MIC-DKFZ/nnUNet",
)


class Reader:
    """Reader `nnunet`."""

    def detects(self, folder: Path) -> bool:
        """Returns whether the folder has a `dataset.json` with channel names."""
        return "channel_names" in read_declaration(folder)

    def read(self, folder: Path) -> Dataset:
        """Lists the cases.

        Raises:
            FseftError: `dataset.json` is wrong, or a case lacks a channel.
        """
        path = folder / dataset_json.NAME
        declared: NnunetDeclaration = dataset_json.check_declaration(
            read_declaration(folder), NnunetDeclaration, path
        )
        channels, ending = _channels(declared.channel_names, path), declared.file_ending
        cases = _listed_cases(declared.dataset, path)
        if not cases:
            images = _images(folder, ending, len(channels))
            cases = paired(images, _declared_images(folder / LABELS, ending))
        complete = {case.name: case.images for case in cases if case.images}
        check_channels(complete, len(channels))
        labels = dataset_json.nnunet_labels(declared.labels, path, declared.regions_class_order)
        return Dataset(
            name=folder.name,
            reader="nnunet",
            channels=channels,
            labels=labels.structures,
            regions=labels.regions,
            meanings=meanings(declared.name, labels.structures),
            annotation=labels.annotation,
            cases=cases,
        )


def _declared_images(folder: Path, ending: str) -> dict[str, Path]:
    """Returns the images with the ending that `dataset.json` declares.

    Raises:
        FseftError: All images in the folder have another ending.
    """
    images = images_in(folder, ending)
    others = {} if images else images_in(folder)
    if others:
        example = next(iter(others.values())).name
        raise FseftError(
            f"declares the file_ending {ending!r}, but {folder.name} contains {example}",
            file=folder.parent / dataset_json.NAME,
            hint="Correct file_ending.",
        )
    return images


def _listed_cases(entries: Mapping[str, ListedCase], path: Path) -> tuple[Case, ...]:
    """Returns the cases in the list `dataset`, which replaces the folders; empty without a list."""
    cases = []
    for name, entry in sorted(entries.items()):
        images = [listed_file(path.parent, image) for image in entry.images]
        cases.append(
            Case(
                name=unicodedata.normalize("NFC", name),
                images=tuple(image for image in images if image) if all(images) else (),
                label=listed_file(path.parent, entry.label) if entry.label else None,
            )
        )
    if cases and not any(case.images for case in cases):
        raise missing_files_error(
            path, [image for entry in entries.values() for image in entry.images]
        )
    return tuple(cases)


def _images(folder: Path, ending: str, channels: int) -> dict[str, tuple[Path, ...]]:
    """Returns the images in `imagesTr` by case."""
    files = _declared_images(folder / IMAGES, ending)
    images = by_channel(files)
    if channels == 1:
        return with_unnumbered(images, files)
    if files and not images:
        raise FseftError(
            f"contains {len(files)} images, none of them named CASE_0000{ending}",
            file=folder / IMAGES,
            hint="Add the channel number _0000 to their names.",
        )
    return images


def _channels(names: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """Returns the channel names, which must be numbered from 0 on."""
    numbers = [str(number) for number in range(len(names))]
    if not numbers or sorted(names) != sorted(numbers):
        hint = 'Write them as {"0": "CT"}.'
        raise FseftError("has channel_names that are not numbered from 0 on", file=path, hint=hint)
    return tuple(names[number] for number in numbers)
