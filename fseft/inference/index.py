"""`predictions.json`: which structures a folder of segmentations holds, and which adapters made each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fseft.errors import FseftError, pluralise
from fseft.schemas import PredictedCase, Predictions
from fseft.workspace import file_lock, write_document

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
            f"is not understood ({error.errors()[0]['msg']})",
            file=path,
            hint="Repair it, or move the folder away.",
        ) from error


def makers(case: PredictedCase) -> tuple[str, ...]:
    """The sha256 of all adapters that a segmentation was made with, in the order of the command line."""
    return case.adapter, *case.others


@dataclass
class PredictionIndex:
    """The index of an output folder, which other processes may add to at the same time.

    Attributes:
        folder: Where the segmentations lie.
        labels: Structures and voxel values of all of them.
        adapters: The sha256 and the place of the adapters that make the new ones.
        cases: What the folder held when this was last read or written.
    """

    folder: Path
    labels: dict[str, int]
    adapters: dict[str, str]
    cases: dict[str, PredictedCase] = field(default_factory=dict)

    def add(self, new: Mapping[str, PredictedCase]) -> None:
        """Write more cases to what is in the file by now; adapters without a case are left out.

        Raises:
            FseftError: It cannot be written, or has become one of other structures.
        """
        with file_lock(self.folder / INDEX):
            known = self._read()
            self.cases = {**known.cases, **new}
            places = {**known.adapters, **self.adapters}
            used = [sha256 for case in self.cases.values() for sha256 in makers(case)]
            kept = {
                sha256: places[sha256] for sha256 in [*used, *self.adapters] if sha256 in places
            }
            write_document(
                self.folder / INDEX,
                known.model_copy(update={"adapters": kept, "cases": self.cases}),
            )

    def _read(self) -> Predictions:
        """What is in the file by now.

        Raises:
            FseftError: Other structures, as one list of labels could not name them all.
        """
        known = read_index(self.folder / INDEX)
        if known is None or not known.cases:
            return Predictions(labels=self.labels)
        if known.labels != self.labels:
            raise FseftError(
                f"holds predictions of other structures ({', '.join(known.labels)})",
                file=self.folder / INDEX,
                hint="Give another --output.",
            )
        return known

    def open(self, targets: Mapping[str, Path], warn: Callable[[str], None]) -> None:
        """Look at what the folder holds before anything is written to it.

        Args:
            targets: Case -> the file that its segmentation will be.
            warn: Told what of other adapters is kept and what is replaced, and scores that are no longer true.

        Raises:
            FseftError: It holds other structures, or a file that would be replaced and is nobody's prediction, but
                may be somebody's reference.
        """
        known, scans = read_index(self.folder / INDEX), set(targets)
        for name, file in targets.items():
            if file.is_file() and (known is None or name not in known.cases):
                raise FseftError(
                    "is there and was not predicted by fseft",
                    file=file,
                    hint="Give another --output.",
                )
        self.cases = dict(self._read().cases)
        others = {
            name for name, case in self.cases.items() if set(makers(case)) != set(self.adapters)
        }
        for what, cases in (("keeps", sorted(others - scans)), ("had", sorted(others & scans))):
            if cases:
                named = ", ".join(cases[:_NAMED]) + (", ..." if len(cases) > _NAMED else "")
                replaced = ", now replaced" if what == "had" else ""
                warn(
                    f"{self.folder} {what} {pluralise(len(cases), 'prediction')} of another adapter ({named}){replaced}"
                )
        if others and (self.folder / METRICS).is_file():
            warn(
                f"{self.folder / METRICS} was made of other predictions than these: evaluate again"
            )
        self.add({})
