"""Base classes and types of all schemas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)

_Voxels = Annotated[int, Field(gt=0)]
_Length = Annotated[FiniteFloat, Field(gt=0)]
Triple = tuple[_Voxels, _Voxels, _Voxels]
Millimetres = tuple[_Length, _Length, _Length]
Modality = Literal["ct", "mr", "other"]
ChannelMode = Literal["first", "mean", "all"]
"""How the channels of a scan reach a network that takes one."""
Orientation = Annotated[
    str, StringConstraints(pattern="^[RLAPSI]{3}$"), AfterValidator(lambda code: _axes(code))
]
"""Three-letter code of the directions of the axes, each of another one: "RAS"."""
RelativePath = Annotated[str, AfterValidator(lambda path: _inside(path))]
"""A path with `/` that stays in its folder."""
Range = tuple[float, float]
"""Smallest and largest value."""
WholeNumber = Annotated[int, BeforeValidator(lambda value: _number(value))]
"""An integer; also written as 1.0 or "1", but not as true."""
LabelValue = Annotated[WholeNumber, Field(gt=0, lt=1 << 32)]
LabelTable = Annotated[dict[str, LabelValue], AfterValidator(lambda labels: _unique(labels))]
"""Structure name -> voxel value, each of another one; without the background, 0."""


def optional(default: Any = None, description: str | None = None) -> Any:
    """Returns a field that is not written if it has its default.

    Documents without it, and digests of them, remain as earlier versions made them.
    """
    return Field(
        default=default, description=description, exclude_if=lambda value: value == default
    )


def _axes(code: str) -> str:
    if len({letter.translate(_OPPOSITE) for letter in code}) < 3:
        raise ValueError(f"{code} names a direction twice")
    return code


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or PurePosixPath(path).is_absolute():
        raise ValueError(f"{path!r} is not a path in the folder")
    return path


_OPPOSITE = str.maketrans("LPI", "RAS")


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("it is not a number")  # noqa: TRY004 - as pydantic expects
    return value


def _unique(labels: dict[str, int]) -> dict[str, int]:
    names: dict[int, str] = {}
    for name, value in labels.items():
        if value in names:
            raise ValueError(f"{names[value]!r} and {name!r} have the same value {value}")
        names[value] = name
    return labels


class FrozenModel(BaseModel):
    """Immutable data with validated fields; unknown fields are an error.

    A renamed field keeps its old spelling in `former_names`, so that files and commands of earlier
    versions still work. Only the current names are written, listed and documented.

    Examples:
        >>> class Training(FrozenModel):
        ...     former_names: ClassVar = {"warm_up": "warmup_fraction"}
        ...     former_values: ClassVar = {"features": {"kept": "cached"}}
        ...     warmup_fraction: float = 0.05
        ...     features: str = "recomputed"
        >>> Training(**{"warm_up": 0.1, "features": "kept"})
        Training(warmup_fraction=0.1, features='cached')
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    former_names: ClassVar[Mapping[str, str]] = {}
    """Earlier name of a field -> its current name."""
    former_values: ClassVar[Mapping[str, Mapping[Any, Any]]] = {}
    """Current name of a field -> earlier spelling of a value -> its current spelling."""

    @classmethod
    def current_name(cls, key: str) -> str:
        """Returns the current name of a field; current and unknown names are returned unchanged."""
        return cls.former_names.get(key, key)

    @classmethod
    def upgrade(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Translates field names and values of earlier versions; unknown keys are kept.

        Args:
            values: Field name -> value, for example the settings in a `run.json`.

        Returns:
            The same settings under the current names, not validated.

        Raises:
            ValueError: A field is present under two of its names.
        """
        upgraded: dict[str, Any] = {}
        for key, value in values.items():
            name = cls.current_name(key)
            if name in upgraded:
                raise ValueError(f"{name} is set twice: {key} is another name of it")
            spellings = cls.former_values.get(name, {})
            upgraded[name] = spellings.get(value, value) if isinstance(value, str) else value
        return upgraded

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, values: Any) -> Any:
        renamed = cls.former_names or cls.former_values
        return cls.upgrade(values) if renamed and isinstance(values, Mapping) else values


class Document(FrozenModel):
    """The content of one JSON file, with the version of its format."""

    schema_version: int = 1


class Config(FrozenModel):
    """Base class of the settings of a component.

    Its fields are the keys of `--set key=value`, described by `pydantic.Field(description=...)`;
    the name `preset` is reserved.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    @property
    def closed_form(self) -> bool:
        """Whether a solver replaces training steps (`AdaptedNetwork.fit_closed_form`)."""
        return False
