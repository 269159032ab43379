"""Finds the images of a folder in any layout, and pairs them with their labels by name."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.volume.image_files import (
    SUPPORTED,
    case_name,
    file_stem,
    is_image,
    is_unread_image,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LABEL_WORDS = frozenset(
    (
        *("label", "labels", "labelmap", "labelmaps", "seg", "segs", "segmentation"),
        *("segmentations", "mask", "masks", "annotation", "annotations", "gt", "groundtruth"),
        *("truth", "contour", "contours", "manual", "reference", "target", "targets"),
    )
)
_IMAGE_WORDS = frozenset(
    ("image", "images", "img", "imgs", "scan", "scans", "volume", "volumes", "data", "raw", "orig")
)
_SPLIT = re.compile(r"(tr|ts|train|training|test)$")
_CHANNEL = re.compile(r"(.+)_(\d{4})", re.DOTALL)
_MAX_DEPTH = 3


@dataclass(frozen=True)
class PairedCase:
    """The files of a case.

    Attributes:
        images: Channel -> image; the channel is its number in the name, or the word in which the
            names of the images of a case differ, and empty if there is one image.
        label: The label; None for an unlabelled case.
    """

    images: dict[str, Path] = field(default_factory=dict)
    label: Path | None = None


def pair_files(folder: Path) -> dict[str, PairedCase]:
    """Pairs images and labels below a folder, at most three levels deep.

    A file is a label if its name, or that of one of its folders, has a word such as `label`, `seg`
    or `mask`. An image and a label belong together if their paths are equal without such words, as
    `images/a.nii.gz` and `labels/a.nii.gz`, `a.nii.gz` and `a_seg.nii.gz`, `img01.nii.gz` and
    `label01.nii.gz`, or `a/t1.nii.gz`, `a/t2.nii.gz` and `a/mask.nii.gz`.

    Args:
        folder: The folder.

    Returns:
        The cases that have an image, by name.

    Raises:
        FseftError: No image is found, or a case has several labels.

    Examples:
        >>> cases = pair_files(Path("scans"))  # doctest: +SKIP
        >>> cases["patient1"].label  # doctest: +SKIP
        PosixPath('scans/patient1_seg.nii.gz')
    """
    images: dict[str, list[Path]] = defaultdict(list)
    labels: dict[str, Path] = {}
    for path in _image_files(folder):
        relative = path.relative_to(folder)
        key = _key(relative)
        if not _is_label(relative):
            images[key].append(path)
        elif key in labels:
            cause = f"{labels[key].relative_to(folder)} is another label of this case"
            hint = "Remove one, or write a dataset.json that lists images and labels."
            raise FseftError(cause, case=key, file=path, hint=hint)
        else:
            labels[key] = path
    images = _with_channels_joined(images, labels)
    if not images:
        raise _no_image_error(folder)
    return {
        name: PairedCase(_by_channel(images[key]), labels.get(key))
        for key, name in _names(images).items()
    }


def _image_files(folder: Path) -> Iterator[Path]:
    """Yields images and DICOM series, sorted by path; hidden files and folders are skipped."""
    for place, subfolders, files in os.walk(folder):
        here = Path(place)
        series = [name for name in subfolders if is_image(here / name)]
        deep = len(here.relative_to(folder).parts) >= _MAX_DEPTH
        subfolders[:] = sorted(
            name for name in subfolders if not (deep or name.startswith(".") or name in series)
        )
        for name in sorted([*files, *series]):
            if not name.startswith(".") and is_image(here / name):
                yield here / name


def _words(relative: Path) -> list[str]:
    """Returns the words of a path in lower case; `label01` is two words, `t1` is one."""
    words = []
    for part in (*relative.parent.parts, file_stem(relative)):
        for word in re.findall(r"[^\W_]+", part.lower()):
            stem = word.rstrip("0123456789")
            words += [stem, word[len(stem) :]] if _is_generic(stem) and stem != word else [word]
    return words


def _is_generic(word: str, words: frozenset[str] = _LABEL_WORDS | _IMAGE_WORDS) -> bool:
    return _SPLIT.sub("", word) in words


def _is_label(relative: Path) -> bool:
    return any(_is_generic(word, _LABEL_WORDS) for word in _words(relative))


def _key(relative: Path) -> str:
    """Returns what the paths of an image and its label have in common."""
    return "_".join(word for word in _words(relative) if not _is_generic(word))


def _with_channels_joined(
    images: Mapping[str, Sequence[Path]], labels: Mapping[str, Path]
) -> dict[str, list[Path]]:
    """Joins images to the case whose label, or channel number 0000, they share a name with."""
    joined: dict[str, list[Path]] = defaultdict(list)
    for key, paths in images.items():
        for path in paths:
            joined[_case_key(key, path, labels)].append(path)
    return dict(joined)


def _case_key(key: str, path: Path, labels: Mapping[str, Path]) -> str:
    """Returns the key of the case of an image: without its channel number, or that of a label."""
    if key in labels:
        return key
    if match := _CHANNEL.fullmatch(case_name(path)):
        return key.removesuffix(f"_{match[2]}")
    prefixes = [label for label in labels if key.startswith(f"{label}_")]
    return max(prefixes, key=len, default=key)


def _by_channel(paths: Sequence[Path]) -> dict[str, Path]:
    """Returns channel -> path."""
    if len(paths) == 1:
        return {"": paths[0]}
    words = [_words(Path(path.name)) for path in paths]
    common = set(words[0]).intersection(*words[1:])
    names = ["_".join(word for word in own if word not in common) for own in words]
    return dict(sorted(zip(names, paths, strict=True)))


def _names(images: Mapping[str, Sequence[Path]]) -> dict[str, str]:
    """Returns key -> name of the case: of its files or its folder, if no other case has it."""
    names = {key: _common_name(paths) for key, paths in images.items()}
    counts = Counter(names.values())
    unique = {}
    for key in sorted(images):
        unique[key] = names[key] if counts[names[key]] == 1 else key
    return unique


def _common_name(paths: Sequence[Path]) -> str:
    """Returns the words that the names of images begin with; if there are none, their folder."""
    names = [case_name(path) for path in paths]
    numbered = [_CHANNEL.fullmatch(name) for name in names]
    if all(numbered):
        names = [match[1] for match in numbered if match]
    words = [re.split(r"([_\-. ]+)", name) for name in names]
    positions = zip(*words, strict=False)
    equal = takewhile(lambda position: len(set(position)) == 1, positions)
    name = "".join(position[0] for position in equal).rstrip("_-. ")
    return name if _key(Path(name)) else paths[0].parent.name


def _no_image_error(folder: Path) -> FseftError:
    unread = [path.name for path in folder.rglob("*") if path.is_file() and is_unread_image(path)]
    if unread:
        cause = f"has no image that can be read, but {len(unread)} others (such as {unread[0]})"
        return FseftError(cause, file=folder, hint=f"Convert them. {SUPPORTED}")
    return FseftError("has no image", file=folder, hint=f"Give a folder of scans. {SUPPORTED}")
