"""Documents whose keys include the metrics that were chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from fseft.schemas import FrozenModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.plugin import MetricSpec


class MetricColumn(FrozenModel):
    """How the values of a metric are shown.

    Attributes:
        key: Name in files.
        title: Heading of the column.
        unit: Unit of the values, such as "mm"; empty for a ratio.
        direction: Whether better values are higher, lower, or closer to zero.
        digits: Decimals.
        note: Remark on unit or parameters; `{tolerance_mm}` stands for the tolerance.
    """

    key: str
    title: str
    unit: str = ""
    direction: Literal["higher", "lower", "zero"]
    digits: int = 3
    note: str = ""

    @classmethod
    def of(cls, metric: MetricSpec) -> MetricColumn:
        """Returns the column of a metric."""
        note = metric.note or (f"in {metric.unit}" if metric.unit else "")
        return cls(
            key=metric.key,
            title=metric.title,
            unit=metric.unit,
            direction=metric.direction,
            digits=metric.digits,
            note=note,
        )

    def text(self, values: Mapping[str, float | None]) -> str:
        """Returns this metric's value among those by key as text, a dash where it is undefined."""
        value = values.get(self.key)
        return "-" if value is None else f"{value:.{self.digits}f}"

    def rank(self, value: float) -> float:
        """Returns a number that is larger for a better value."""
        return {"higher": value, "lower": -value, "zero": -abs(value)}[self.direction]

    def explanation(self, tolerance_mm: float) -> str:
        """Returns heading and note, as in `HD95 in mm`; empty without a note."""
        note = self.note.format(tolerance_mm=tolerance_mm)
        return f"{self.title} {note}" if note else ""


def explain(columns: tuple[MetricColumn, ...], tolerance_mm: float) -> str:
    """Returns one sentence on the units and parameters of the metrics; empty without notes.

    Args:
        columns: The metrics.
        tolerance_mm: Surface deviation that tolerance-based metrics accept.
    """
    notes = [note for column in columns if (note := column.explanation(tolerance_mm))]
    return f"{', '.join(notes)}." if notes else ""


class MetricFields(FrozenModel):
    """Base of documents with values by metric, which are keys of the document in JSON.

    The field `metrics = {"dice": 0.9, "hd95_mm": 2.0}` is written as `"dice": 0.9, "hd95_mm": 2.0`,
    so that a file reads alike whichever metrics it has.
    """

    _affixes: ClassVar[dict[str, tuple[str, str]]] = {}
    """Field -> prefix and suffix of its keys in JSON; the first that match a key take it."""
    _file_keys: ClassVar[dict[str, str]] = {}
    """Field -> its key in JSON, where that of the first release differs."""

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, data: Any) -> Any:
        """Moves the keys of metrics into their fields."""
        if not isinstance(data, dict):
            return data
        names = {key: field for field, key in cls._file_keys.items()}
        fields: dict[str, Any] = {}
        for key, value in cls._upgrade(data).items():
            field, metric = ("", "") if key in cls.model_fields else cls._locate(key)
            if key in names or not field:
                fields[names.get(key, key)] = value
            else:
                fields[field] = {**fields.get(field, {}), metric: value}
        return fields

    @classmethod
    def _upgrade(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Returns the keys of this version, from those of an earlier one."""
        return data

    @classmethod
    def _locate(cls, key: str) -> tuple[str, str]:
        """Returns the field and the metric that a key of a file belongs to; empty if none."""
        for field, affixes in cls._affixes.items():
            prefix, suffix = affixes
            if not key.startswith(prefix) or not key.endswith(suffix):
                continue
            return field, key.removeprefix(prefix).removesuffix(suffix)
        return "", ""

    @model_serializer(mode="wrap")
    def _flatten(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return self._to_file_keys(handler(self))

    def _to_file_keys(self, data: dict[str, Any]) -> dict[str, Any]:
        """Returns the document with a key for each metric, after its version."""
        flat: dict[str, Any] = {}
        if "schema_version" in data:
            flat["schema_version"] = data.pop("schema_version")
        for field, affixes in reversed(self._affixes.items()):
            prefix, suffix = affixes
            values = data.pop(field)
            for metric, value in values.items():
                key = f"{prefix}{metric}{suffix}"
                flat[key] = value
        for field, value in data.items():
            flat[self._file_keys.get(field, field)] = value
        return flat
