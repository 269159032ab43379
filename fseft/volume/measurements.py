"""Measurements of single cases on disk, so that an interrupted fingerprint resumes."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from fseft.volume.fingerprint import CaseMeasurement
from fseft.volume.histogram import CaseIntensities
from fseft.workspace import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

_ARRAYS = ("values", "counts")  # fields of CaseIntensities
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    BadZipFile,
    zlib.error,
)


def write_measurement(path: Path, measurement: CaseMeasurement) -> None:
    """Writes a measurement as an `.npz` file with a JSON string and the histograms.

    Args:
        path: The file.
        measurement: Measurement of one case.

    Raises:
        FseftError: The file cannot be written.
    """
    facts = asdict(replace(measurement, intensities=()))
    facts["intensities"] = []
    arrays: dict[str, Any] = {}
    for index, channel in enumerate(measurement.intensities):
        numbers = dict(vars(channel))
        for name in _ARRAYS:
            arrays[f"{name}_{index}"] = numbers.pop(name)
        facts["intensities"].append(numbers)
    text = np.array(json.dumps(facts, default=float))
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, facts=text, **arrays)


def read_measurement(path: Path) -> CaseMeasurement | None:
    """Reads a measurement; return None if the file is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            facts = json.loads(str(arrays["facts"]))
            facts["intensities"] = tuple(
                _channel(numbers, index, arrays)
                for index, numbers in enumerate(facts["intensities"])
            )
            return _measurement(facts)
    except _DAMAGE:
        return None


def _measurement(facts: dict[str, Any]) -> CaseMeasurement:
    for key in ("volumes_mm3", "extents_mm"):
        facts[key] = {int(label): _as_tuple(value) for label, value in facts[key].items()}
    values = {field.name: _as_tuple(facts[field.name]) for field in fields(CaseMeasurement)}
    return CaseMeasurement(**values)


def _channel(numbers: dict[str, Any], index: int, arrays: Any) -> CaseIntensities:
    histogram = {name: arrays[f"{name}_{index}"] for name in _ARRAYS}
    return CaseIntensities(**numbers, **histogram)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
