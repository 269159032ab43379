"""`predictions.json`: which structures a folder of segmentations holds, and which adapter made each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from fseft.documents import Predictions
from fseft.errors import FseftError, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

INDEX = "predictions.json"
METRICS = "metrics.json"
"""What `fseft predict` and `fseft evaluate` write beside the segmentations."""

_NAMED = 5  # cases that a warning names


def read_index(path: Path) -> Predictions | None:
    """What `fseft predict` wrote into a folder, or somebody in its name; None where it is missing.

    Raises:
        FseftError: It cannot be read, so that nobody knows what the folder holds.
    """
    if not path.is_file():
        return None
    try:
        return Predictions.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise FseftError(
            f"is not understood ({error.errors()[0]['msg']})", file=path, hint="Repair it, or move the folder away."
        ) from error


def open_index(
    folder: Path,
    labels: dict[str, int],
    adapter: tuple[str, Path],
    targets: Mapping[str, Path],
    warn: Callable[[str], None],
) -> Predictions:
    """What the output folder of a prediction holds, to be added to.

    Args:
        folder: Where the segmentations lie.
        labels: Structures and voxel values of the new ones.
        adapter: The sha256 and the place of the adapter that makes them.
        targets: Case -> the file that its segmentation will be.
        warn: Told what of another adapter is kept and what is replaced, and scores that are no longer true.

    Raises:
        FseftError: It holds other structures, as one list of labels could not name them all; or a file that would be
            replaced and is nobody's prediction, but may be somebody's reference.
    """
    sha256, place = adapter
    before, scans = read_index(folder / INDEX), set(targets)
    for name, file in targets.items():
        if file.is_file() and (before is None or name not in before.cases):
            raise FseftError("is there and was not predicted by fseft", file=file, hint="Give another --output.")
    if before is None or not before.cases:
        return Predictions(labels=labels, adapters={sha256: str(place)})
    if before.labels != labels:
        raise FseftError(
            f"holds predictions of other structures ({', '.join(before.labels)})",
            file=folder / INDEX,
            hint="Give another --output.",
        )
    others = {name for name, case in before.cases.items() if case.adapter != sha256}
    for what, cases in (("keeps", sorted(others - scans)), ("had", sorted(others & scans))):
        if cases:
            named = ", ".join(cases[:_NAMED]) + (", ..." if len(cases) > _NAMED else "")
            replaced = ", now replaced" if what == "had" else ""
            warn(f"{folder} {what} {counted(len(cases), 'prediction')} of another adapter ({named}){replaced}")
    if others and (folder / METRICS).is_file():
        warn(f"{folder / METRICS} was made of other predictions than these: evaluate again")
    kept = {case.adapter for name, case in before.cases.items() if name in others - scans}
    adapters = {key: where for key, where in before.adapters.items() if key in kept} | {sha256: str(place)}
    return before.model_copy(update={"adapters": adapters})
