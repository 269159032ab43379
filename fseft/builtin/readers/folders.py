"""Folders `imagesTr` and `labelsTr` with the same file names, or images numbered by channel."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from fseft import dataset_json
from fseft.errors import FseftError, pluralise
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SPEC = ReaderSpec(
    name="folders",
    factory="fseft.builtin.readers.folders:Reader",
    summary="a folder of images and a folder of labels with the same file names",
)

IMAGES, LABELS = "imagesTr", "labelsTr"

MEANINGS = {
    "Liver": {"cancer": "liver_tumor"},
    "Lung": {"cancer": "lung_tumor"},
    "Pancreas": {"cancer": "pancreas_tumor"},
    "HepaticVessel": {"Vessel": "hepatic_vessel", "Tumour": "hepatic_vessel_tumor"},
    "btcv": {
        "veins": "portal_vein_and_splenic_vein",
        "rad": "adrenal_gland_right",
        "lad": "adrenal_gland_left",
    },
}
"""Ambiguous structure names of public datasets -> meaning, by the `name` in `dataset.json`."""

_CHANNEL = re.compile(r"(.+)_(\d{4})", re.DOTALL)  # a name may hold a line feed


class Reader:
    """Reader `folders`; structures have no names, and are called after their values."""

    def detects(self, folder: Path) -> bool:
        """Returns whether the folder contains `imagesTr`."""
        return (folder / IMAGES).is_dir()

    def read(self, folder: Path) -> Dataset:
        """Lists the cases.

        Raises:
            FseftError: Two files have the name of one case, or a case lacks a channel.
        """
        images, labels = images_in(folder / IMAGES), images_in(folder / LABELS)
        if _are_numbered(images, labels):
            cases = with_unnumbered(by_channel(images), images)
        else:
            cases = {name: (path,) for name, path in images.items()}
        count = max(map(len, cases.values()), default=1)
        check_channels(cases, count)
        warnings: tuple[str, ...] = ()
        if (folder / dataset_json.NAME).exists():
            warnings = (f"{dataset_json.NAME} has an unknown form: its names are not used",)
        channels = ["image"] if count == 1 else [f"image_{index}" for index in range(count)]
        return Dataset(
            name=folder.name,
            reader="folders",
            channels=tuple(channels),
            cases=paired(cases, labels),
            warnings=warnings,
        )


def meanings(name: object, labels: Iterable[str]) -> dict[str, str]:
    """Returns the meaning of ambiguous label names of a public dataset.

    Args:
        name: The name of the dataset in its `dataset.json`.
        labels: Names of the structures.
    """
    of_dataset = MEANINGS.get(str(name), {})
    return {label: of_dataset[label] for label in labels if label in of_dataset}


def images_in(folder: Path, ending: str = "") -> dict[str, Path]:
    """Returns the images of a folder by name without suffix, sorted; hidden files are skipped.

    Args:
        folder: Folder of image files or of folders with DICOM series; may not exist.
        ending: Only files with this ending, in upper or lower case; by default all supported
            images.

    Raises:
        FseftError: Two files differ only in the suffix.
    """
    from fseft.volume.image_files import case_name, is_image

    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        is_other = not path.name.lower().endswith(ending.lower()) or not is_image(path)
        if is_other or path.name.startswith("."):
            continue
        name = case_name(path)
        if name in images:
            cause = f"{images[name].name} is another image of this case"
            raise FseftError(cause, case=name, file=path, hint="Remove one of them.")
        images[name] = path
    return images


def by_channel(images: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Groups images `CASE_0000`, `CASE_0001`, ... by case; other names are ignored.

    Raises:
        FseftError: A case lacks a channel.
    """
    numbered: dict[str, dict[int, Path]] = {}
    for name, path in images.items():
        if match := _CHANNEL.fullmatch(name):
            numbered.setdefault(match[1], {})[int(match[2])] = path
    cases = {}
    for case, channels in numbered.items():
        missing = sorted(set(range(max(channels) + 1)) - channels.keys())
        if missing:
            cause = f"has no channel {', '.join(f'_{number:04d}' for number in missing)}"
            raise FseftError(cause, case=case, hint="Add the missing file.")
        cases[case] = tuple(channels[number] for number in sorted(channels))
    return cases


def with_unnumbered(
    cases: Mapping[str, tuple[Path, ...]], images: Mapping[str, Path]
) -> dict[str, tuple[Path, ...]]:
    """Adds images without a channel number to the cases of a dataset with a single channel.

    Args:
        cases: Files with a channel number by case, one per channel.
        images: All files by name without suffix.
    """
    if any(len(paths) > 1 for paths in cases.values()):
        return dict(cases)
    unnumbered = {name: (path,) for name, path in images.items() if not _CHANNEL.fullmatch(name)}
    return {**unnumbered, **cases}


def listed_file(folder: Path, text: str) -> Path | None:
    """Returns a file that a `dataset.json` lists; None if it does not exist.

    Backslashes separate folders as on Windows, and names may be composed or decomposed (NFC, NFD).

    Args:
        folder: Folder of the `dataset.json`.
        text: Path in it, absolute or relative to the folder.
    """
    for spelling in (text, text.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            for path in (folder / spelling, folder / unicodedata.normalize(form, spelling)):
                if path.exists():
                    return path
    return None


def missing_files_error(path: Path, listed: Sequence[str]) -> FseftError:
    """Returns the error for a `dataset.json` all of whose images are missing.

    Args:
        path: The `dataset.json`.
        listed: Paths of the images in it.
    """
    cause = (
        f"lists {pluralise(len(listed), 'image')}, none of which exists (the first: {listed[0]})"
    )
    hint = f"Write paths relative to {path.parent}."
    return FseftError(cause, file=path, hint=hint)


def check_channels(cases: Mapping[str, tuple[Path, ...]], count: int) -> None:
    """Refuses a case whose number of files differs from the number of channels.

    Args:
        cases: Files by case.
        count: Number of channels.

    Raises:
        FseftError: A case has more or fewer files.
    """
    for case, paths in cases.items():
        if len(paths) != count:
            cause = f"has {len(paths)} image files, expected {count} (one per channel)"
            raise FseftError(cause, case=case, file=paths[0].parent, hint="Add or remove channels.")


def paired(images: Mapping[str, tuple[Path, ...]], labels: Mapping[str, Path]) -> tuple[Case, ...]:
    """Returns all cases sorted by name, including those with only an image or only a label.

    Args:
        images: Files by case, one per channel.
        labels: Label file by case.
    """
    names = sorted(images.keys() | labels.keys())
    return tuple(
        Case(name=name, images=images.get(name, ()), label=labels.get(name)) for name in names
    )


def _are_numbered(images: Mapping[str, Path], labels: Iterable[str]) -> bool:
    """Returns whether image names end in a channel number.

    If there are labels, their names decide; otherwise each case must have a channel 0.
    """
    labels = set(labels)
    matches = [match for name in images if (match := _CHANNEL.fullmatch(name))]
    cases = {match[1] for match in matches}
    if labels:
        return len(cases & labels) > len(images.keys() & labels)
    all_numbered = bool(images) and len(matches) == len(images)
    return all_numbered and all(f"{case}_0000" in images for case in cases)
