"""What was measured on a case, in a file: a fingerprint that was broken off measures no case again."""

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

_ARRAYS = ("values", "counts")


def write_measurement(path: Path, measured: CaseMeasurement) -> None:
    """Write a measurement, `.npz`."""
    facts = asdict(replace(measured, intensities=()))
    facts["intensities"] = [
        {key: value for key, value in vars(channel).items() if key not in _ARRAYS}
        for channel in measured.intensities
    ]
    arrays: dict[str, Any] = {
        f"{name}_{index}": getattr(channel, name)
        for index, channel in enumerate(measured.intensities)
        for name in _ARRAYS
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, facts=np.array(json.dumps(facts, default=float)), **arrays)


def read_measurement(path: Path) -> CaseMeasurement | None:
    """Read a measurement back; None where there is none, or it is damaged."""
    try:
        with path.open("rb") as file, np.load(file) as held:
            facts = json.loads(str(held["facts"]))
            channels = [
                CaseIntensities(**one, **{name: held[f"{name}_{index}"] for name in _ARRAYS})
                for index, one in enumerate(facts["intensities"])
            ]
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error):
        return None
    for key in ("volumes_mm3", "extents_mm"):
        facts[key] = {int(value): _tuples(found) for value, found in facts[key].items()}
    facts["intensities"] = tuple(channels)
    return CaseMeasurement(
        **{field.name: _tuples(facts[field.name]) for field in fields(CaseMeasurement)}
    )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
