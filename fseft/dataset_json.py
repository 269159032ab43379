"""Schemas of `dataset.json`, as nnU-Net v2 and the Medical Segmentation Decathlon write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, JsonValue, model_validator

from fseft.documents import read_json, validate
from fseft.errors import FseftError
from fseft.schemas import FULLY_ANNOTATED, Annotation, LabelTable, WholeNumber

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "dataset.json"
IGNORE = "ignore"
"""Name of nnU-Net for the value of voxels that count neither as background nor as a structure."""
BACKGROUND = "background"

_NNUNET = 'Write channel_names as {"0": "CT"} and labels as {"background": 0, "liver": 1}.'
_REGIONS = (
    'Write regions as "labels": {"background": 0, "whole": [1, 2], "core": [2]}, and one value of '
    'each, in the order of writing, as "regions_class_order": [1, 2].'
)
_DECATHLON = (
    'Write modality as {"0": "CT"}, labels as {"0": "background", "1": "liver"}, and training as '
    '[{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}].'
)


class TrainingPair(BaseModel):
    """Paths of an image and its label, relative to the folder of the dataset."""

    image: str
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_image(cls, pair: object) -> object:
        return {"image": pair} if isinstance(pair, str) else pair


class ListedCase(BaseModel):
    """Paths of the images of a case, one per channel, and of its label."""

    images: list[str] = Field(min_length=1)
    label: str | None = None


class NnunetDeclaration(BaseModel):
    """The part of `dataset.json` of nnU-Net v2 that is read; other keys are allowed."""

    channel_names: dict[str, str]
    labels: dict[str, JsonValue] = {}
    regions_class_order: JsonValue = None
    file_ending: str = ""
    dataset: dict[str, ListedCase] = {}
    name: JsonValue = ""


class DecathlonDeclaration(BaseModel):
    """The part of `dataset.json` of the Decathlon that is read; other keys are allowed."""

    modality: dict[str, str] = Field(min_length=1)
    labels: dict[str, JsonValue] = {}
    training: list[TrainingPair]
    name: JsonValue = ""


def read_declaration(folder: Path) -> Mapping[str, JsonValue]:
    """Returns the content of `dataset.json`, empty if the file does not exist.

    Raises:
        FseftError: It is not a JSON object.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    content: Mapping[str, JsonValue] = read_json(
        path, dict[str, JsonValue], name="JSON object", hint="Repair or remove it."
    )
    return content


def check_declaration(content: Mapping[str, JsonValue], schema: Any, path: Path) -> Any:
    """Validates the content of `dataset.json`.

    Args:
        content: From `read_declaration`.
        schema: `NnunetDeclaration` or `DecathlonDeclaration`.
        path: The file, for errors.

    Raises:
        FseftError: A value is missing, or of another type.
    """
    hint = _NNUNET if schema is NnunetDeclaration else _DECATHLON
    return validate(dict(content), schema, name=NAME, hint=hint, file=path)


@dataclass(frozen=True)
class DeclaredLabels:
    """The labels of a `dataset.json`.

    Attributes:
        structures: Structure -> voxel value, without background.
        annotation: Which voxels count.
        regions: Structure -> voxel values that belong to it; empty if none overlap.
    """

    structures: dict[str, int]
    annotation: Annotation = FULLY_ANNOTATED
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)


def nnunet_labels(
    labels: Mapping[str, JsonValue], path: Path, order: JsonValue = None
) -> DeclaredLabels:
    """Returns the structures and the ignore label of nnU-Net's `{name: value}`.

    The ignore label need not be the highest. It may be 0 if the background has another value, as
    where scribbles mark it.

    Args:
        labels: The entry `labels` of `dataset.json`.
        path: The file, for error messages.
        order: Entry `regions_class_order`: the value that each structure is written with, where
            some are regions, `{name: [values]}`.

    Raises:
        FseftError: A value is not a whole number, or belongs to two names; or regions lack an
            order, or do not contain the values that they are written with.
    """
    regions: dict[str, tuple[int, ...]] = {}
    if any(isinstance(labels[name], list) for name in labels.keys() - {BACKGROUND, IGNORE}):
        regions, labels = _regions(labels, order, path)
    values = _whole_numbers(labels, path, _NNUNET)
    background = values.get(BACKGROUND, 0)
    annotation = Annotation(ignore=values.get(IGNORE), background=background)
    if background:
        _table({name: value for name, value in values.items() if value}, path)
    values.pop(BACKGROUND, None)
    structures = _table({name: value for name, value in values.items() if value}, path)
    structures.pop(IGNORE, None)
    declared = DeclaredLabels(structures, annotation, regions)
    try:
        _check_ignore_label(annotation, structures)
        _check_regions(declared)
    except FseftError as error:
        raise error.located(file=path) from error
    return declared


def _check_regions(declared: DeclaredLabels) -> None:
    """Refuses an ignore label that is a value of a region."""
    ignore = declared.annotation.ignore
    if ignore is not None and ignore in set().union(*declared.regions.values()):
        cause = f"the ignore label {ignore} is a value of a region"
        raise FseftError(cause, hint="Use a value that no region has.")


def _regions(
    labels: Mapping[str, JsonValue], order: JsonValue, path: Path
) -> tuple[dict[str, tuple[int, ...]], dict[str, JsonValue]]:
    """Returns the values of each region, and labels with the value that each is written with."""
    others = {name: labels[name] for name in (BACKGROUND, IGNORE) if name in labels}
    listed = {
        name: value if isinstance(value, list) else [value]
        for name, value in labels.items()
        if name not in others
    }
    regions: dict[str, tuple[int, ...]] = validate(
        listed, dict[str, tuple[WholeNumber, ...]], name="table of labels", hint=_REGIONS, file=path
    )
    if order is None:
        cause = f"has regions ({', '.join(regions)}), but no regions_class_order"
        raise FseftError(cause, file=path, hint=_REGIONS)
    written: tuple[int, ...] = validate(
        order, tuple[WholeNumber, ...], name="regions_class_order", hint=_REGIONS, file=path
    )
    _check_order(regions, written, path)
    return regions, {**others, **dict(zip(regions, written, strict=True))}


def _check_order(
    regions: Mapping[str, tuple[int, ...]], written: tuple[int, ...], path: Path
) -> None:
    """Refuses an order that does not state a value of each region."""
    if len(written) != len(regions):
        cause = f"has {len(regions)} regions, and {len(written)} values in regions_class_order"
        raise FseftError(cause, file=path, hint=_REGIONS)
    for (name, values), value in zip(regions.items(), written, strict=True):
        if value not in values or min(values) < 1:
            listed_values = ", ".join(map(str, values))
            cause = f"writes the region {name!r} ({listed_values}) with the value {value}"
            raise FseftError(cause, file=path, hint=_REGIONS)


def with_rules(
    annotation: Annotation,
    structures: Mapping[str, int],
    ignore_label: int | None = None,
    annotated_slices: str | None = None,
) -> Annotation:
    """Returns which voxels count, by what a dataset declares and by what the user says.

    Args:
        annotation: As declared.
        structures: Structure -> voxel value; empty if they are not known.
        ignore_label: Value of voxels that do not count; None for the declared one.
        annotated_slices: "auto" leaves out slices without any label, in cases that are drawn in
            single slices; "all" counts them as background; None for the declared rule.

    Raises:
        FseftError: The ignore label is the value of something else, or the rule is unknown.
    """
    annotated_slices = annotated_slices or annotation.slices
    if annotated_slices not in ("all", "auto"):
        cause = f"the rule for annotated slices is {annotated_slices!r}"
        raise FseftError(cause, hint="Set `annotated_slices` to auto or all.")
    update: dict[str, object] = {"slices": annotated_slices}
    if ignore_label is not None:
        update["ignore"] = ignore_label
    complete = annotation.model_copy(update=update)
    _check_ignore_label(complete, structures)
    return complete


def _check_ignore_label(annotation: Annotation, structures: Mapping[str, int]) -> None:
    """Refuses an ignore label that is negative, or the value of something else."""
    value = annotation.ignore
    if value is None:
        return
    if value < 0:
        raise FseftError(f"the ignore label is {value}", hint="Give a value from 0 on.")
    if value == annotation.background:
        hint = "Use another value, or give the background another one in dataset.json."
        raise FseftError(f"the ignore label {value} is the value of the background", hint=hint)
    for name, other in structures.items():
        if other == value:
            hint = "Use a value that no structure has, or remove the structure from dataset.json."
            raise FseftError(f"the ignore label {value} is the value of {name!r}", hint=hint)


def decathlon_labels(labels: Mapping[str, JsonValue], path: Path) -> dict[str, int]:
    """Returns structure -> voxel value of the Decathlon's `{value: name}`, without background.

    Args:
        labels: The entry `labels` of `dataset.json`.
        path: The file, for error messages.

    Raises:
        FseftError: A key is not a whole number, or a name is not text or occurs twice.
    """
    numbers = _whole_numbers({key: key for key in labels}, path, _DECATHLON)
    values: dict[str, int] = {}
    for key, name in labels.items():
        if not isinstance(name, str) or (numbers[key] and name in values):
            cause = f"has the label {key!r}: {name!r}, which is not text or occurs twice"
            raise FseftError(cause, file=path, hint=_DECATHLON)
        if numbers[key]:
            values[name] = numbers[key]
    return _table(values, path)


def is_decathlon(labels: Mapping[str, JsonValue]) -> bool:
    """Returns whether labels are written as `{value: name}`."""
    return all(key.isdigit() for key in labels)


def _whole_numbers(values: Mapping[str, Any], path: Path, hint: str) -> dict[str, int]:
    numbers: dict[str, int] = validate(
        values, dict[str, WholeNumber], name="table of labels", hint=hint, file=path
    )
    return numbers


def _table(labels: dict[str, int], path: Path) -> dict[str, int]:
    hint = "Give each structure a voxel value that no other one has."
    table: dict[str, int] = validate(
        labels, LabelTable, name="table of labels", hint=hint, file=path
    )
    return table
