"""Schemas of `dataset.json`, as nnU-Net v2 and the Medical Segmentation Decathlon write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, JsonValue, model_validator

from fseft.documents import read_json, validate
from fseft.errors import FseftError
from fseft.schemas import LabelTable, WholeNumber

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "dataset.json"
IGNORE = "ignore"
"""Structure of nnU-Net whose voxels count neither as background nor as a structure."""

_NNUNET = 'Write channel_names as {"0": "CT"} and labels as {"background": 0, "liver": 1}.'
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


def nnunet_labels(labels: Mapping[str, JsonValue], path: Path) -> dict[str, int]:
    """Returns structure -> voxel value of nnU-Net's `{name: value}`, without background.

    Args:
        labels: The entry `labels` of `dataset.json`.
        path: The file, for error messages.

    Raises:
        FseftError: A value is not a whole number, or belongs to two names.
    """
    values = _whole_numbers(labels, path, _NNUNET)
    return _table({name: value for name, value in values.items() if value}, path)


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
