"""Reads a dataset folder with the first reader that detects its layout."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fseft.dataset_json import with_rules
from fseft.errors import FseftError, PluginError, pluralise, summarise_exception
from fseft.planning.dataset_ids import find_dataset_folder
from fseft.planning.label_presence import check_missing_label
from fseft.registration import PLUGIN_EXCEPTIONS
from fseft.registry import registry
from fseft.schemas import Dataset
from fseft.volume.image_files import SUPPORTED, is_image, is_unread_image
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fseft.schemas import Case

logger = logging.getLogger(__name__)

LEAST_SPECIFIC_READER = "folders"
"""The reader with the fewest requirements, which counts only if no other detects a folder."""

_LAYOUTS = (
    "Give one of: nnU-Net v2 (dataset.json with channel_names, imagesTr/CASE_0000.nii.gz, "
    "labelsTr/CASE.nii.gz); "
    "Medical Segmentation Decathlon (dataset.json with modality and training); "
    "TotalSegmentator (CASE/ct.nii.gz, CASE/segmentations/); a public dataset as its owner "
    "distributes it; bare folders imagesTr and labelsTr with the same file names. "
    "`fseft start FOLDER` describes other layouts by a dataset.json."
)
_DISABLE = "Disable its plugin: `fseft -p no:NAME ...`; `fseft plugins` lists them."
_PLACES = ("imagesTr", "labelsTr")
_MAX_NAMES = 3  # cases in a warning


def read_dataset(
    folder: Path,
    *,
    strict: bool = False,
    reader: str = "",
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    missing_label: str | None = None,
) -> Dataset:
    """Lists the cases of a dataset; no image is opened.

    Args:
        folder: Dataset in a layout that a reader detects; or its nnU-Net id or name, see
            `find_dataset_folder`.
        strict: Refuse labels without an image, images without a label and images that the reader
            does not use, instead of warning.
        reader: Name of the reader; empty for the one that detects the layout.
        ignore_label: Value of voxels that do not count; None for what the dataset declares.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background. None: what a `Dataset` states, or all.
        missing_label: Meaning of a structure that a label file does not contain: "absent" or
            "unannotated". None: what a `Dataset` states, or absent.

    Returns:
        The dataset, named after its folder. Labels without an image are skipped, images without a
        label become unlabelled cases.

    Raises:
        FseftError: The folder is missing, empty, of an unknown layout or broken, or incomplete with
            `strict`; or a reader of a plugin and another one both detect it; or the ignore label is
            the value of something else.
    """
    folder = _checked_folder(folder)
    reader = reader or _find_reader(folder)
    dataset = _checked_answer(_read(reader, folder), reader, folder)
    cases = tuple(case for case in dataset.cases if case.images)
    unused = _unused_files(folder, dataset)
    if not cases:
        raise _no_image_error(folder, unused)
    without_image = [case.name for case in dataset.cases if not case.images]
    warnings = (*dataset.warnings, *_incomplete_cases(without_image, cases), *_warn_unused(unused))
    if strict and warnings:
        hint = "Complete or remove them, or read the dataset without the strict check."
        raise FseftError(warnings[0], file=folder, hint=hint)
    changes = {
        "name": _sanitised(folder.name),
        "folder": folder,
        "reader": reader,
        "cases": cases,
        "warnings": warnings,
    }
    dataset = dataset.model_copy(update=changes)
    return with_annotation(dataset, ignore_label, annotated_slices, missing_label)


def with_annotation(
    dataset: Dataset,
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
    missing_label: str | None = None,
) -> Dataset:
    """Returns a dataset whose cases know which voxels of their labels count.

    Args:
        dataset: The dataset, whose rules apply where an argument is None.
        ignore_label: As for `read_dataset`.
        annotated_slices: As for `read_dataset`.
        missing_label: As for `read_dataset`.

    Raises:
        FseftError: The ignore label is the value of something else, or the rule is unknown.
    """
    try:
        annotation = with_rules(dataset.annotation, dataset.labels, ignore_label, annotated_slices)
    except FseftError as error:
        raise error.located(file=dataset.folder) from error
    cases = tuple(case.model_copy(update={"annotation": annotation}) for case in dataset.cases)
    rule = check_missing_label({"": missing_label or dataset.missing_label})[""]
    return dataset.model_copy(
        update={"annotation": annotation, "missing_label": rule, "cases": cases}
    )


def detected_reader(folder: Path) -> str:
    """Returns the name of the first reader that detects the layout of a folder; empty for none.

    Args:
        folder: The folder.

    Raises:
        FseftError: The folder is missing or empty, or has a damaged `dataset.json`.
    """
    return next(iter(_detecting_readers(_checked_folder(folder))), "")


def _checked_folder(folder: Path) -> Path:
    folder = find_dataset_folder(folder)
    if not folder.is_dir():
        cause = "is not a folder" if folder.exists() else "does not exist"
        raise FseftError(cause, file=folder, hint="Give the folder of a dataset.")
    if all(item.name.startswith(".") for item in folder.iterdir()):
        raise FseftError("is empty", file=folder, hint=_LAYOUTS)
    return folder.resolve()


def _find_reader(folder: Path) -> str:
    """Returns the name of the only reader that detects the folder.

    Built-in readers are tried in a fixed order, of which the first counts.
    """
    detecting = _detecting_readers(folder)
    if len(detecting) > 1:
        sources = []
        for name in detecting:
            package = registry().resolve("reader", name).source.package
            sources.append(f"{name} ({package})")
        raise FseftError(
            f"{len(detecting)} readers detect this layout: {', '.join(sources)}",
            file=folder,
            hint=f"Choose one by `reader`, such as {detecting[0]}.",
        )
    if not detecting:
        hint = _neighbouring_dataset(folder) or _LAYOUTS
        raise FseftError("has an unknown dataset layout", file=folder, hint=hint)
    return detecting[0]


def _detecting_readers(folder: Path) -> list[str]:
    """Returns the readers of plugins, and the first built-in one, that detect a folder."""
    builtin: list[str] = []
    foreign: list[str] = []
    for name in registry().names("reader"):
        is_builtin = registry().resolve("reader", name).source.distribution == "fseft"
        (builtin if is_builtin else foreign).append(name)
    detecting = [name for name in foreign if _detects(name, folder)]
    builtin.sort(key=lambda name: (name == LEAST_SPECIFIC_READER, name))
    first = next((name for name in builtin if _detects(name, folder)), None)
    if first is not None and not (detecting and first == LEAST_SPECIFIC_READER):
        detecting.append(first)
    return detecting


def _detects(name: str, folder: Path) -> bool:
    """Whether a reader detects a folder; a broken reader must not hide the ones that work."""
    try:
        return bool(registry().create("reader", name).detects(folder))
    except PluginError as error:
        logger.warning("%s", error)
    except FseftError:  # a broken dataset is the user's to repair
        raise
    except PLUGIN_EXCEPTIONS as error:
        package = registry().resolve("reader", name).source.package
        summary = summarise_exception(error)
        logger.warning("the reader %r of %s failed (%s)", name, package, summary, exc_info=error)
    return False


def _read(reader: str, folder: Path) -> object:
    try:
        return registry().create("reader", reader).read(folder)
    except ValidationError as error:
        cause = f"the reader {reader!r} made an invalid dataset ({summarise_exception(error)})"
        raise FseftError(cause, file=folder, hint=_DISABLE) from error


def _neighbouring_dataset(folder: Path) -> str:
    """Suggests the parent or a subfolder that is a dataset."""
    subfolders = sorted(path for path in folder.iterdir() if path.is_dir())
    for other in (folder.parent, *subfolders):
        if _detecting_readers(other):
            return f"Did you mean {other}?"
    return ""


def _checked_answer(dataset: object, reader: str, folder: Path) -> Dataset:
    """Refuses what the reader of a plugin must not return."""
    if not isinstance(dataset, Dataset):
        cause = f"the reader {reader!r} returned a {type(dataset).__name__}, not a Dataset"
        raise FseftError(cause, file=folder, hint=_DISABLE)
    counts = Counter(case.name for case in dataset.cases)
    name, count = counts.most_common(1)[0] if counts else ("", 0)
    if count > 1:
        raise FseftError(
            f"the reader {reader!r} returned {count} cases with the same name",
            case=name,
            file=folder,
            hint="Rename the files, or disable its plugin.",
        )
    return dataset


def _incomplete_cases(without_image: Sequence[str], cases: Sequence[Case]) -> list[str]:
    """Describes labels without an image and, in a labelled dataset, images without a label."""
    warnings = []
    if without_image:
        subject = pluralise(len(without_image), "label")
        warnings.append(f"{subject} without an image ({_first(without_image)}): skipped")
    unlabelled = [case.name for case in cases if case.label is None]
    if 0 < len(unlabelled) < len(cases):
        subject = pluralise(len(unlabelled), "image")
        warnings.append(f"{subject} without a label ({_first(unlabelled)}): not used for training")
    return warnings


def _unused_files(folder: Path, dataset: Dataset) -> list[str]:
    """Returns images and labels that are in no case, as their names or formats are others."""
    from fseft.volume.masks import label_files

    files = [file for case in dataset.cases for file in (*case.images, *label_files(case))]
    used = {file.resolve() for file in files}
    return [
        f"{place}/{path.name}"
        for place in _PLACES
        for path in _visible_entries(folder / place)
        if (is_image(path) or is_unread_image(path)) and path.resolve() not in used
    ]


def _visible_entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _warn_unused(unused: Sequence[str]) -> list[str]:
    if not unused:
        return []
    names = _first(unused)
    return [f"{pluralise(len(unused), 'file')} with another name or format ({names}): not used"]


def _no_image_error(folder: Path, unused: Sequence[str]) -> FseftError:
    """Returns the error for a dataset without an image, or with images that are not understood."""
    images = [name for name in unused if name.startswith(_PLACES[0])]
    if not images:
        return FseftError("has no image", file=folder, hint="Put images into imagesTr.")
    cause = f"has {pluralise(len(images), 'image')}, none of which is used ({_first(images)})"
    hint = f"Check their names, and the file_ending in dataset.json. {SUPPORTED}"
    return FseftError(cause, file=folder, hint=hint)


def _first(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _sanitised(name: str) -> str:
    """Returns a folder name of letters of any script, digits and `._-`."""
    composed = unicodedata.normalize("NFC", name)
    safe = re.sub(r"[^\w.-]+", "-", composed).strip("-.")
    return safe or f"dataset-{digest(name, length=8)}"
