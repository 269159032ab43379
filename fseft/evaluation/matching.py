"""Which prediction belongs to which label, and what their voxel values mean."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.inference.index import INDEX, adapter_hashes, read_index
from fseft.volume.image import IMAGE_SUFFIXES, case_name, is_image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Pairing:
    """Which files belong together, and what either side says about its voxel values (None: nothing).

    Args:
        cases: Case name -> prediction and label.
        without_prediction: Labels that have no prediction.
        without_label: Predictions that have no label.
        predicted: Voxel values by structure of the predictions.
        reference: Voxel values by structure of the labels.
        ignore: The value of voxels in the labels that do not count.
        seen: Cases of support scans, whose adapter has learned from them.
        adapters: Whose the predictions are: sha256 of the adapter -> where it lay.
        mixed: Whether some of them are of other adapters than the rest.
    """

    cases: dict[str, tuple[Path, Path]]
    without_prediction: tuple[str, ...]
    without_label: tuple[str, ...]
    predicted: dict[str, int] | None
    reference: dict[str, int] | None
    ignore: int | None
    seen: tuple[str, ...] = ()
    adapters: dict[str, str] = field(default_factory=dict)
    mixed: bool = False


@dataclass(frozen=True)
class References:
    """Label files by case name, and what their voxel values mean (None: nothing tells).

    Args:
        files: Case name -> label map.
        values: Voxel values by structure.
        ignore: The value of voxels that do not count.
    """

    files: dict[str, Path]
    values: dict[str, int] | None
    ignore: int | None = None


def read_references(labels: Path, values: Mapping[str, int] | None = None) -> References:
    """The labels of a folder, or one file; names come from `dataset.json` in or above the folder.

    Args:
        labels: A folder of label files, or one file.
        values: Voxel values by structure, where no `dataset.json` tells them.

    Raises:
        FseftError: There are none, a case twice, or a broken description.
    """
    named, ignore = _reference_names(labels)
    return References(_files(labels), dict(values) if values else named, ignore)


def pair_files(
    predictions: Path, labels: Path, *, values: Mapping[str, int] | None = None
) -> Pairing:
    """Match predictions and labels by case name; two single files match whatever their names.

    Structures are named by `predictions.json` beside the predictions, and by `dataset.json` (of nnU-Net or
    the Decathlon) in or above the folder of labels.

    Args:
        predictions: A folder of label files, or one file.
        labels: A folder of label files, or one file.
        values: Voxel values of the labels by structure, where no `dataset.json` tells them.

    Raises:
        FseftError: The arguments are swapped, no case in common, a case twice on one side, or a broken description.
    """
    _check_sides(predictions, labels)
    references, predicted = read_references(labels, values), _files(predictions)
    if predictions.is_file() and labels.is_file():
        predicted = dict(zip(references.files, predicted.values(), strict=True))
    return _paired(_folder(predictions), predicted, references)


def pair(predictions: Path, references: References) -> Pairing:
    """Match the predictions of a folder with labels by case name.

    Raises:
        FseftError: There are none, or no case in common.
    """
    return _paired(predictions, _files(predictions), references)


def _paired(folder: Path, predicted: Mapping[str, Path], references: References) -> Pairing:
    labels = references.files
    cases = {case: (predicted[case], label) for case, label in labels.items() if case in predicted}
    if not cases:
        cause = f"no case in common: predictions {_some(predicted)}; labels {_some(labels)}"
        raise FseftError(cause, hint="A prediction has the file name of its label.", file=folder)
    index = read_index(folder / INDEX)
    files = {case: case_name(prediction) for case, (prediction, _) in cases.items()}
    made = {
        case: index.cases[file] for case, file in files.items() if index and file in index.cases
    }
    return Pairing(
        cases,
        without_prediction=tuple(case for case in labels if case not in cases),
        without_label=tuple(case for case in predicted if case not in cases),
        predicted={name: value for name, value in index.labels.items() if value > 0}
        if index
        else None,
        reference=references.values,
        ignore=references.ignore,
        seen=tuple(case for case, entry in made.items() if entry.seen),
        adapters={
            one: index.adapters.get(one, "") for e in made.values() for one in adapter_hashes(e)
        }
        if index
        else {},
        mixed=len({adapter_hashes(entry) for entry in made.values()}) > 1,
    )


def _folder(place: Path) -> Path:
    return place.parent if place.is_file() else place


def _check_sides(predictions: Path, labels: Path) -> None:
    """Refuse swapped arguments: scores are written beside the predictions, never among the labels."""
    left, right = _folder(predictions), _folder(labels)
    if (right / INDEX).is_file() and not (left / INDEX).is_file():
        raise FseftError(
            f"holds predictions ({INDEX}), but is given as the labels",
            file=right,
            hint="Give the predictions first, then the labels.",
        )


def _files(place: Path) -> dict[str, Path]:
    """The label files of a folder by case name, or the one file."""
    if place.is_file():
        return {case_name(place): place}
    if not place.is_dir():
        raise FseftError(
            "does not exist", file=place, hint="Give a label file or a folder of them."
        )
    files: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        if path.name.startswith(".") or not path.is_file() or not is_image(path):
            continue
        case = case_name(path)
        if case in files:
            raise FseftError(
                f"is there twice, also as {files[case].name}",
                case=case,
                file=path,
                hint="Keep one.",
            )
        files[case] = path
    if not files:
        below = [name for name in ("labelsTs", "labelsTr", "labels") if (place / name).is_dir()]
        hint = f"Give {place / below[0]}." if below else f"Known: {', '.join(IMAGE_SUFFIXES)}."
        raise FseftError("holds no label files", file=place, hint=hint)
    return files


def _some(cases: Mapping[str, Path]) -> str:
    names = list(cases)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise FseftError(
            f"cannot be read as JSON ({error})", file=path, hint="Repair or delete it."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise FseftError('has no object "labels"', file=path, hint="Repair or delete it.")
    return content


def _reference_names(labels: Path) -> tuple[dict[str, int] | None, int | None]:
    """The structures of the reference, and the voxel value to ignore; None where nothing tells."""
    folder = _folder(labels)
    for path in (folder / "dataset.json", folder.resolve().parent / "dataset.json"):
        if path.is_file():
            named = _named_values(path)
            ignore = named.pop("ignore", None)
            return named, ignore
    return None, None


def _named_values(path: Path) -> dict[str, int]:
    """Name -> voxel value, background left out; reads `{name: value}` and the Decathlon's `{value: name}`."""
    labels = _read_json(path)["labels"]
    if all(str(key).isdigit() for key in labels):
        labels = {name: key for key, name in labels.items()}
    try:
        values = {str(name): int(value) for name, value in labels.items()}
    except (TypeError, ValueError) as error:
        cause = "has labels that are no whole numbers, such as the regions of nnU-Net"
        raise FseftError(cause, file=path, hint="Name each voxel value by itself.") from error
    return {name: value for name, value in values.items() if value > 0}
