"""Bare folders: `imagesTr` and `labelsTr` with the same file names, or images numbered by channel."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SPEC = ReaderSpec(
    name="folders",
    factory="fseft.builtin.readers.folders:Reader",
    summary="a folder of images and a folder of labels with the same file names",
)

IMAGES, LABELS, DECLARATION = "imagesTr", "labelsTr", "dataset.json"

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
"""By the `name` in `dataset.json`, of tasks of the Medical Segmentation Decathlon and others of its form: names of
structures that do not say which, or only there."""

_CHANNEL = re.compile(r"(.+)_(\d{4})")


class Reader:
    """Reader `folders`: knows no names, so structures are called after their values."""

    def detects(self, folder: Path) -> bool:
        """Whether there is a folder `imagesTr`."""
        return (folder / IMAGES).is_dir()

    def read(self, folder: Path) -> Dataset:
        """List the cases.

        Raises:
            FseftError: Two files claim one case, or a case lacks a channel.
        """
        images, labels = images_in(folder / IMAGES), images_in(folder / LABELS)
        numbered = _numbered(images, labels)
        cases = by_channel(images) if numbered else {name: (path,) for name, path in images.items()}
        count = max(map(len, cases.values()), default=1)
        check_channels(cases, count)
        unused = f"{DECLARATION} is of no form that is known here: its names are not used"
        return Dataset(
            name=folder.name,
            reader="folders",
            channels=("image",)
            if count == 1
            else tuple(f"image_{index}" for index in range(count)),
            cases=paired(cases, labels),
            warnings=(unused,) if (folder / DECLARATION).exists() else (),
        )


def declaration(folder: Path) -> Mapping[str, Any]:
    """What `dataset.json` holds; nothing where there is none.

    Raises:
        FseftError: It is no JSON object.
    """
    path = folder / DECLARATION
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise FseftError(
            f"is no valid JSON ({error})", file=path, hint="Repair or remove it."
        ) from error
    if not isinstance(content, dict):
        raise FseftError("holds no JSON object", file=path, hint="Repair or remove it.")
    return content


def named(labels: Any, path: Path) -> dict[str, Any]:
    """The labels of a declaration, which must be an object.

    Raises:
        FseftError: They are not.
    """
    if not isinstance(labels, dict):
        cause = f"has labels that are no object but a {type(labels).__name__}"
        raise FseftError(cause, file=path, hint='Write them as {"background": 0, "liver": 1}.')
    return labels


def meanings(content: Mapping[str, Any], labels: Iterable[str]) -> dict[str, str]:
    """What some of the labels of a declaration mean, where it is of a public dataset with names that do not say it."""
    known = MEANINGS.get(str(content.get("name")), {})
    return {name: known[name] for name in labels if name in known}


def images_in(folder: Path, ending: str = "") -> dict[str, Path]:
    """Returns the images of a folder by case name, in order, without hidden files.

    Args:
        folder: Folder of images; a missing folder counts as empty.
        ending: Required end of file names; by default all readable files and DICOM series.

    Raises:
        FseftError: Two files of one case differ in their suffix only.
    """
    from fseft.volume.image import case_name, is_image

    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not path.name.endswith(ending) or not is_image(path):
            continue
        name = case_name(path)
        if name in images:
            cause = f"{images[name].name} is another image of this case"
            raise FseftError(cause, case=name, file=path, hint="Remove one of them.")
        images[name] = path
    return images


def by_channel(images: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Group images `CASE_0000`, `CASE_0001`, ... by case; other names are left out."""
    channels: dict[str, dict[int, Path]] = {}
    for name, path in images.items():
        if match := _CHANNEL.fullmatch(name):
            channels.setdefault(match[1], {})[int(match[2])] = path
    for case, numbers in channels.items():
        if missing := sorted(set(range(max(numbers) + 1)) - numbers.keys()):
            raise FseftError(
                f"has no channel {_four(missing)}", case=case, hint="Add the missing file."
            )
    return {
        case: tuple(path for _, path in sorted(numbers.items()))
        for case, numbers in channels.items()
    }


def check_channels(cases: Mapping[str, tuple[Path, ...]], count: int) -> None:
    """Refuse a case with more or fewer files than there are channels."""
    for case, paths in cases.items():
        if len(paths) != count:
            cause = f"has {len(paths)} image files, expected {count} (one per channel)"
            raise FseftError(cause, case=case, file=paths[0].parent, hint="Add or remove channels.")


def paired(images: Mapping[str, tuple[Path, ...]], labels: Mapping[str, Path]) -> tuple[Case, ...]:
    """All cases, sorted by name, also those with an image or a label alone."""
    names = sorted(images.keys() | labels.keys())
    return tuple(
        Case(name=name, images=images.get(name, ()), label=labels.get(name)) for name in names
    )


def _numbered(images: Mapping[str, Path], labels: Iterable[str]) -> bool:
    """Whether image names end in a channel number: labels tell; without any, each must have a channel 0."""
    labels = set(labels)
    stripped = {match[1] for name in images if (match := _CHANNEL.fullmatch(name))}
    if labels:
        return len(stripped & labels) > len(images.keys() & labels)
    return bool(images) and all(
        (match := _CHANNEL.fullmatch(name)) is not None and f"{match[1]}_0000" in images
        for name in images
    )


def _four(numbers: Iterable[int]) -> str:
    return ", ".join(f"_{number:04d}" for number in numbers)
