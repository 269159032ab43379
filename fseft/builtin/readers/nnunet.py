"""nnU-Net v2: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz` and `dataset.json`.

With a single channel, `_0000` is optional, so that a `dataset.json` names the structures of bare
folders too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.builtin.readers.folders import (
    DECLARATION,
    IMAGES,
    LABELS,
    by_channel,
    check_channels,
    checked_labels,
    declaration,
    images_in,
    meanings,
    paired,
)
from fseft.errors import FseftError
from fseft.plugin import Dataset, ReaderSpec

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
        return "channel_names" in declaration(folder)

    def read(self, folder: Path) -> Dataset:
        """Lists the cases.

        Raises:
            FseftError: `dataset.json` is wrong or has regions, or a case lacks a channel.
        """
        content, path = declaration(folder), folder / DECLARATION
        channels = _channels(content["channel_names"], path)
        ending = str(content.get("file_ending", ""))
        files = images_in(folder / IMAGES, ending)
        images = by_channel(files)
        if files and not images and len(channels) == 1:
            images = {name: (path,) for name, path in files.items()}
        if files and not images:
            raise FseftError(
                f"contains {len(files)} images, none of them named CASE_0000{ending}",
                file=folder / IMAGES,
                hint="Add the channel number _0000 to their names.",
            )
        check_channels(images, len(channels))
        labels = _labels(content.get("labels", {}), path)
        return Dataset(
            name=folder.name,
            reader="nnunet",
            channels=channels,
            labels=labels,
            meanings=meanings(content, labels),
            cases=paired(images, images_in(folder / LABELS, ending)),
        )


def _channels(names: Any, path: Path) -> tuple[str, ...]:
    """Returns the channel names, which must be numbered from 0 on."""
    numbers = [str(number) for number in range(len(names))] if isinstance(names, dict) else []
    if not numbers or sorted(names) != sorted(numbers):
        hint = 'Write them as {"0": "CT"}.'
        raise FseftError("has channel_names that are not numbered from 0 on", file=path, hint=hint)
    return tuple(str(names[number]) for number in numbers)


def _labels(labels: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Returns structure name -> value, without background."""
    values: dict[str, int] = {}
    for name, value in checked_labels(labels, path).items():
        if isinstance(value, list):
            cause = f"declares a region ({name!r}: {value}), which is not supported"
            hint = "Give each structure one value in the label files."
            raise FseftError(cause, file=path, hint=hint)
        if name == "ignore":
            cause = f"declares an ignore label ({value}), which is not supported"
            hint = "Remove cases with it, or annotate its voxels, and remove the entry."
            raise FseftError(cause, file=path, hint=hint)
        if not isinstance(value, int):
            cause = f"has the label {name!r} = {value!r}, which is not an integer"
            hint = 'Write labels as {"background": 0, "liver": 1}.'
            raise FseftError(cause, file=path, hint=hint)
        if value != 0:
            values[name] = value
    return values
