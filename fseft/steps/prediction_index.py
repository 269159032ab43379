"""`predictions.json`: which structures a folder of segmentations holds, and which adapter made each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from fseft.documents import Predictions
from fseft.errors import FseftError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

INDEX = "predictions.json"
METRICS = "metrics.json"
"""What `fseft predict` and `fseft evaluate` write beside the segmentations."""

_NAMED = 5  # cases that a warning names


def read_index(path: Path) -> Predictions | None:
    """What `fseft predict` wrote into a folder; None where it is missing, or not of its making."""
    try:
        return Predictions.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError:
        return None


def open_index(
    folder: Path,
    labels: dict[str, int],
    adapter: tuple[str, Path],
    scans: Collection[str],
    warn: Callable[[str], None],
) -> Predictions:
    """What the output folder of a prediction holds, to be added to.

    Args:
        folder: Where the segmentations lie.
        labels: Structures and voxel values of the new ones.
        adapter: The sha256 and the place of the adapter that makes them.
        scans: Their cases.
        warn: Told what of another adapter is kept and what is replaced, and scores that are no longer true.

    Raises:
        FseftError: It holds other structures: one list of labels could not name them all.
    """
    sha256, place = adapter
    before = read_index(folder / INDEX)
    if before is None or not before.cases:
        return Predictions(labels=labels, adapters={sha256: str(place)})
    if before.labels != labels:
        raise FseftError(
            f"holds predictions of other structures ({', '.join(before.labels)})",
            file=folder / INDEX,
            hint="Give another --output.",
        )
    others = {name for name, case in before.cases.items() if case.adapter != sha256}
    for what, cases in (("keeps", sorted(others - set(scans))), ("had", sorted(others & set(scans)))):
        if cases:
            named = ", ".join(cases[:_NAMED]) + (", ..." if len(cases) > _NAMED else "")
            replaced = ", now replaced" if what == "had" else ""
            warn(f"{folder} {what} {counted(len(cases), 'prediction')} of another adapter ({named}){replaced}")
    if others and (folder / METRICS).is_file():
        warn(f"{folder / METRICS} was made of other predictions than these: evaluate again")
    kept = {case.adapter for name, case in before.cases.items() if name in others - set(scans)}
    adapters = {key: where for key, where in before.adapters.items() if key in kept} | {sha256: str(place)}
    return before.model_copy(update={"adapters": adapters})
