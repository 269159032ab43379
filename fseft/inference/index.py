"""The index of a prediction folder, `predictions.json`: structures, adapters and cases."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fseft.documents import read_json
from fseft.errors import FseftError, pluralise
from fseft.schemas import PredictedCase, Predictions
from fseft.temporaries import move_into_place, remove_leftovers
from fseft.workspace import file_digest, file_lock, require_folder, write_document

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

INDEX = "predictions.json"
METRICS = "metrics.json"
"""Files of `fseft predict` and `fseft evaluate` in the folder of the segmentations."""


def label_map(case: str) -> str:
    """Returns the name of the label map of a case in the folder."""
    return f"{case}.nii.gz"


_MAX_NAMED = 5  # cases that a warning lists


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_index(path: Path) -> Predictions | None:
    """Reads the index of a prediction folder; None if the file does not exist.

    Raises:
        FseftError: The file is not a valid index.
    """
    if not path.is_file():
        return None
    hint = "Repair it, or move the folder away."
    index: Predictions = read_json(path, Predictions, name="index of predictions", hint=hint)
    return index


def is_described(case: PredictedCase, file: Path) -> bool:
    """Returns whether a label map is the one that its entry describes, as far as that is known.

    Args:
        case: The entry in the index.
        file: The label map.

    Returns:
        Whether the sha256 of the file is that of the entry; True for an entry without one.
    """
    return not case.sha256 or file_digest(file) == case.sha256


def adapter_hashes(case: PredictedCase) -> tuple[str, ...]:
    """The sha256 of all adapters of a prediction, in the order of the call."""
    return case.adapter, *case.others


def owned_files(name: str, case: PredictedCase) -> tuple[str, ...]:
    """The paths in the folder that a prediction has written; nothing else is replaced or removed.

    Args:
        name: Name of the case.
        case: Its entry; those of earlier versions list no files, and have a label map.
    """
    return case.files or (label_map(name),)


@dataclass
class PredictionIndex:
    """The index of an output folder; several processes may add to it at the same time.

    Attributes:
        folder: Folder of the segmentations.
        labels: Structure -> voxel value, the same for all cases.
        adapters: sha256 -> path of the adapters that predict now.
        cases: Entries at the last read or write.
    """

    folder: Path
    labels: dict[str, int]
    adapters: dict[str, str]
    cases: dict[str, PredictedCase] = field(default_factory=dict)

    def replace(
        self,
        case: str,
        entry: PredictedCase,
        files: Mapping[Path, Path],
    ) -> None:
        """Moves the files of a case into the folder and adds its entry, under one lock.

        Files of the previous entry that the new one does not list are removed.

        Args:
            case: Name of the case.
            entry: Entry of the case.
            files: Path in the folder -> complete file to move there, from `staging_folder`.

        Raises:
            FseftError: The folder cannot be written, or holds other structures.
        """
        with file_lock(self.folder / INDEX):
            known = self._read().cases.get(case)
            previous = owned_files(case, known) if known else ()
            # Announced first, without a key: the files of a killed run are neither foreign nor
            # those of a finished prediction.
            names = tuple(dict.fromkeys([*previous, *entry.files]))
            self._add({case: entry.model_copy(update={"key": "", "files": names})})
            for target, file in files.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                move_into_place(file, target)
            for name in set(previous) - set(entry.files):
                _remove(self.folder / name)
            self._add({case: entry})

    def _add(self, entries: Mapping[str, PredictedCase]) -> None:
        """Adds entries to the current file, and removes adapters that no entry refers to."""
        current = self._read()
        self.cases = {**current.cases, **entries}
        paths = {**current.adapters, **self.adapters}
        used = [sha256 for case in self.cases.values() for sha256 in adapter_hashes(case)]
        adapters = {key: paths[key] for key in [*used, *self.adapters] if key in paths}
        update = {"adapters": adapters, "cases": self.cases}
        write_document(self.folder / INDEX, current.model_copy(update=update))

    def _read(self) -> Predictions:
        """Reads the current file.

        Raises:
            FseftError: It holds other structures; one index has one list of labels.
        """
        current = read_index(self.folder / INDEX)
        if current is None or not current.cases:
            return Predictions(labels=self.labels)
        if current.labels != self.labels:
            raise FseftError(
                f"holds predictions of other structures ({', '.join(current.labels)})",
                file=self.folder / INDEX,
                hint="Choose another output folder.",
            )
        return current

    def open(self, targets: Mapping[str, Collection[Path]]) -> None:
        """Checks the folder before anything is written, and logs what will be replaced.

        Args:
            targets: Case -> paths of its future files, the label map among them or not.

        Raises:
            FseftError: The folder holds other structures, or a file that fseft did not write, such
                as a reference segmentation.
        """
        require_folder(self.folder)
        remove_leftovers(self.folder)
        self._check_foreign_files(targets)
        self.cases = dict(self._read().cases)
        hashes = set(self.adapters)
        others = [n for n, case in self.cases.items() if set(adapter_hashes(case)) != hashes]
        self._warn("keeps", [name for name in others if name not in targets])
        self._warn("replaces", [name for name in others if name in targets])
        metrics = self.folder / METRICS
        if others and metrics.is_file():
            logger.warning("%s: computed from previous predictions; evaluate again", metrics)
        with file_lock(self.folder / INDEX):
            self._add({})

    def _check_foreign_files(self, targets: Mapping[str, Collection[Path]]) -> None:
        existing = [(name, file) for name, files in targets.items() for file in files]
        existing = [(name, file) for name, file in existing if file.exists()]
        index = read_index(self.folder / INDEX)  # afterwards: another process may add to both
        predicted = index.cases if index else {}
        for name, file in existing:
            case = predicted.get(name)
            if case and file.relative_to(self.folder).as_posix() in owned_files(name, case):
                continue
            raise FseftError(
                "exists and was not written by fseft; refusing to overwrite",
                file=file,
                hint="Choose another output folder.",
            )

    def _warn(self, action: str, cases: Collection[str]) -> None:
        if cases:
            names = sorted(cases)
            listed = ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
            count = pluralise(len(names), "prediction")
            logger.warning("%s: %s %s of another adapter (%s)", self.folder, action, count, listed)
