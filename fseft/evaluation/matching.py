"""Matches predictions with reference labels by case, and reads the structures of either side."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fseft import dataset_json
from fseft.dataset_json import DeclaredLabels, with_rules
from fseft.errors import FseftError
from fseft.inference.index import (
    INDEX,
    adapter_hashes,
    is_described,
    label_map,
    owned_files,
    read_index,
)
from fseft.planning.label_presence import check_missing_label, listed_structures
from fseft.schemas import FULLY_ANNOTATED
from fseft.volume.image_files import IMAGE_SUFFIXES, case_name, is_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from fseft.schemas import Annotation, MissingLabel, PredictedCase, Predictions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MatchedCases:
    """Predictions and references of the same cases, with the structures that either side names.

    Attributes:
        cases: Files of prediction and reference, by case name.
        without_prediction: Cases that have a reference only.
        without_label: Cases that have a prediction only.
        prediction_labels: Voxel value of each structure in the predictions; None: not described.
        reference_labels: Voxel value of each structure in the references; None: not described.
        annotation: Which voxels of the references count.
        regions: Structure -> voxel values that belong to it in the references, if they overlap.
        annotated: Case -> structures that its reference is listed to annotate.
        missing_label: Meaning of a structure that the reference of another case does not contain.
        training_cases: Cases that the adapters were trained on.
        adapters: Path of each adapter that predicted, by its sha256.
        mixed_adapters: Whether cases were predicted by different adapters.
    """

    cases: dict[str, tuple[Path, Path]]
    without_prediction: tuple[str, ...]
    without_label: tuple[str, ...]
    prediction_labels: dict[str, int] | None
    reference_labels: dict[str, int] | None
    annotation: Annotation = FULLY_ANNOTATED
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    annotated: dict[str, frozenset[str]] = field(default_factory=dict)
    missing_label: MissingLabel = "absent"
    training_cases: tuple[str, ...] = ()
    adapters: dict[str, str] = field(default_factory=dict)
    mixed_adapters: bool = False

    def without_training_cases(self) -> MatchedCases:
        """Returns the cases that no adapter was trained on.

        Raises:
            FseftError: The adapters were trained on every case.
        """
        names = self.training_cases
        cases = {case: files for case, files in self.cases.items() if case not in names}
        if not cases:
            raise FseftError(
                f"the adapter was trained on every case ({', '.join(names)})",
                hint="Score other cases, or set `include_training`.",
            )
        return replace(self, cases=cases)


@dataclass(frozen=True)
class ReferenceLabels:
    """Reference label maps, and the structures in them.

    Attributes:
        files: Label map of each case.
        values: Voxel value of each structure; None: not described.
        annotation: Which voxels count.
        regions: Structure -> voxel values that belong to it, if structures overlap.
        annotated: Case -> structures that its label map is listed to annotate.
        missing_label: Meaning of a structure that the label map of another case does not contain;
            None: as for the training cases of the adapters.
    """

    files: dict[str, Path]
    values: dict[str, int] | None
    annotation: Annotation = FULLY_ANNOTATED
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    annotated: dict[str, frozenset[str]] = field(default_factory=dict)
    missing_label: MissingLabel | None = None


def read_references(
    labels: Path,
    values: Mapping[str, int] | None = None,
    ignore_label: int | None = None,
    annotated_slices: str = "all",
    missing_label: str | None = None,
) -> ReferenceLabels:
    """Finds the label maps in a folder, and what they contain by the files in or above it.

    These are `dataset.json` and, where cases annotate different structures, a list of them.

    Args:
        labels: A folder of label files, or one file.
        values: Voxel value of each structure; overrides `dataset.json`.
        ignore_label: Value of voxels that do not count; overrides `dataset.json`.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices.
        missing_label: Meaning of a structure that a label map does not contain, "absent" or
            "unannotated"; a list takes precedence for the cases in it. None: as for the training
            cases of the adapters.

    Raises:
        FseftError: No label files, two files of one case, an invalid `dataset.json` or list, or an
            unknown rule.
    """
    files = _label_files(labels)
    declared = _declared_labels(labels)
    structures = declared.structures if declared else None
    regions = declared.regions if declared else {}
    if values:
        structures, regions = dict(values), {}
    stated = declared.annotation if declared else FULLY_ANNOTATED
    annotation = with_rules(stated, structures or {}, ignore_label, annotated_slices)
    names = list(dict.fromkeys([*(declared.structures if declared else ()), *(structures or ())]))
    return ReferenceLabels(
        files,
        structures,
        annotation,
        regions,
        annotated=_listed_structures(labels, names),
        missing_label=check_missing_label({"": missing_label})[""] if missing_label else None,
    )


def match_files(
    predictions: Path,
    labels: Path,
    *,
    values: Mapping[str, int] | None = None,
    ignore_label: int | None = None,
    annotated_slices: str = "all",
    missing_label: str | None = None,
) -> MatchedCases:
    """Matches predictions and references by case name; two single files match whatever their names.

    Structures are read from `predictions.json` in the folder of predictions, and from the
    `dataset.json` (of nnU-Net or the Decathlon) in or above the folder of references.

    Args:
        predictions: A folder of label files, or one file.
        labels: A folder of reference label files, or one file.
        values: Voxel value of each structure in the references; overrides `dataset.json`.
        ignore_label: As for `read_references`.
        annotated_slices: As for `read_references`.
        missing_label: As for `read_references`.

    Raises:
        FseftError: The arguments are swapped, no case is on both sides, a case has two files, or a
            description is invalid.
    """
    _check_order(predictions, labels)
    references = read_references(labels, values, ignore_label, annotated_slices, missing_label)
    files = _label_files(predictions)
    if predictions.is_file() and labels.is_file():
        files = dict(zip(references.files, files.values(), strict=True))
    return _match(_folder_of(predictions), files, references)


def match_predictions(predictions: Path, references: ReferenceLabels) -> MatchedCases:
    """Matches the predictions in a folder with references by case name.

    Args:
        predictions: A folder of label files, or one file.
        references: The references, from `read_references`.

    Raises:
        FseftError: No predictions, or no case on both sides.
    """
    return _match(predictions, _label_files(predictions), references)


def _match(
    folder: Path, predictions: Mapping[str, Path], references: ReferenceLabels
) -> MatchedCases:
    labels = references.files
    cases = {
        case: (predictions[case], label) for case, label in labels.items() if case in predictions
    }
    if not cases:
        message = f"no case in common: predictions {_listed(predictions)}; labels {_listed(labels)}"
        raise FseftError(message, hint="A prediction has the file name of its label.", file=folder)
    matched = MatchedCases(
        cases,
        without_prediction=tuple(case for case in labels if case not in cases),
        without_label=tuple(case for case in predictions if case not in cases),
        prediction_labels=None,
        reference_labels=references.values,
        annotation=references.annotation,
        regions=references.regions,
        annotated=references.annotated,
        missing_label=references.missing_label or "absent",
    )
    index = read_index(folder / INDEX)
    if index is None:
        return matched
    if references.missing_label is None:
        matched = replace(matched, missing_label=_rule_of_training(matched, index))
    return _with_index(matched, index)


def _rule_of_training(matched: MatchedCases, index: Predictions) -> MissingLabel:
    """Returns how missing labels of the training cases were read; of several adapters, of any."""
    for prediction, _ in matched.cases.values():
        entry = index.cases.get(case_name(prediction))
        if entry and entry.missing_label == "unannotated":
            return "unannotated"
    return "absent"


def _with_index(matched: MatchedCases, index: Predictions) -> MatchedCases:
    """Adds what `predictions.json` records: structures, adapters and training cases."""
    training_cases: list[str] = []
    adapter_groups: set[tuple[str, ...]] = set()
    adapters: dict[str, str] = {}
    for case, (prediction, _) in matched.cases.items():
        name = case_name(prediction)
        entry = index.cases.get(name)
        if entry is None:
            continue
        if entry.seen:
            training_cases.append(case)
        if not _is_predicted(name, entry, prediction):
            logger.warning(
                "%s: has changed since its prediction: the adapter is unknown", prediction
            )
            continue
        adapter_groups.add(adapter_hashes(entry))
        for sha256 in adapter_hashes(entry):
            adapters[sha256] = index.adapters.get(sha256, "")
    return replace(
        matched,
        prediction_labels={name: value for name, value in index.labels.items() if value > 0},
        training_cases=tuple(training_cases),
        adapters=adapters,
        mixed_adapters=len(adapter_groups) > 1,
    )


def _is_predicted(name: str, entry: PredictedCase, file: Path) -> bool:
    """Returns whether the prediction has written a file; only label maps have a digest."""
    if file.name == label_map(name):
        return is_described(entry, file)
    return file.name in owned_files(name, entry)


def _folder_of(path: Path) -> Path:
    return path.parent if path.is_file() else path


def _check_order(predictions: Path, labels: Path) -> None:
    """Refuses swapped and equal arguments: scores are never written to the references."""
    first, second = _folder_of(predictions), _folder_of(labels)
    if predictions.exists() and predictions.resolve() == labels.resolve():
        raise FseftError(
            "is given as the predictions and as the labels",
            file=labels,
            hint="Give the predictions first, then the labels.",
        )
    if (second / INDEX).is_file() and not (first / INDEX).is_file():
        raise FseftError(
            f"holds predictions ({INDEX}), but is given as the labels",
            file=second,
            hint="Give the predictions first, then the labels.",
        )


def _label_files(path: Path) -> dict[str, Path]:
    """Returns the label files of a folder, or the one file, by case name."""
    if path.is_file():
        return {case_name(path): path}
    if not path.is_dir():
        raise FseftError(
            "does not exist", file=path, hint="Give a label file or a folder of label files."
        )
    files: dict[str, Path] = {}
    index = read_index(path / INDEX)
    predicted = index.cases if index else {}
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or not file.is_file() or not is_image(file):
            continue
        case = case_name(file)
        owned = owned_files(case, predicted[case]) if case in predicted else ()
        if case in files and {file.name, files[case].name} <= set(owned):
            continue  # one segmentation in two formats
        if case in files:
            message = f"is a second file of its case, after {files[case].name}"
            raise FseftError(message, case=case, file=file, hint="Keep only one of them.")
        files[case] = file
    if not files:
        raise FseftError("holds no label files", file=path, hint=_label_folder_hint(path))
    return files


def _label_folder_hint(folder: Path) -> str:
    for name in ("labelsTs", "labelsTr", "labels"):
        if (folder / name).is_dir():
            return f"Give {folder / name}."
    return f"Known: {', '.join(IMAGE_SUFFIXES)}."


def _listed(cases: Mapping[str, Path]) -> str:
    names = list(cases)
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def _declared_labels(labels: Path) -> DeclaredLabels | None:
    """Returns what `dataset.json` says of the labels; None without such a file."""
    for parent in _described_by(labels):
        content = dataset_json.read_declaration(parent)
        if content:
            return _labels_in(content, parent / dataset_json.NAME)
    return None


def _listed_structures(labels: Path, structures: Sequence[str]) -> dict[str, frozenset[str]]:
    """Returns case -> annotated structures, of the first list that is found."""
    for parent in _described_by(labels) if structures else ():
        path, listed = listed_structures(parent, structures)
        if path is not None:
            return listed
    return {}


def _described_by(labels: Path) -> tuple[Path, ...]:
    """Returns the folders whose files may describe labels, the closest first."""
    folder = _folder_of(labels)
    # The folder may be a link: its own parent goes before the parent of its target.
    return folder, folder.absolute().parent, folder.resolve().parent


def _labels_in(content: Mapping[str, JsonValue], path: Path) -> DeclaredLabels:
    """Returns structures, and which voxels count, of nnU-Net or the Decathlon."""
    labels = content.get("labels")
    if not isinstance(labels, dict):
        raise FseftError('has no object "labels"', file=path, hint="Repair or delete it.")
    if dataset_json.is_decathlon(labels):
        return DeclaredLabels(dataset_json.decathlon_labels(labels, path))
    return dataset_json.nnunet_labels(labels, path, content.get("regions_class_order"))
