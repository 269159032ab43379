"""CHAOS: `1/DICOM_anon` and `1/Ground` for CT, `1/T2SPIR/DICOM_anon` and `1/T2SPIR/Ground` for MR, PNG labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.plugin import Case, Dataset, ReaderSpec

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ReaderSpec(
    name="chaos",
    factory="fseft.builtin.readers.chaos:Reader",
    summary="CHAOS: CT or MR series in DICOM, with one PNG label image per slice",
    reference="https://chaos.grand-challenge.org",
)

SERIES = (
    ("CT", "", "DICOM_anon", "Ground"),
    ("MR", "_T1DUAL", "T1DUAL/DICOM_anon/InPhase", "T1DUAL/Ground"),
    ("MR", "_T2SPIR", "T2SPIR/DICOM_anon", "T2SPIR/Ground"),
)
"""Channel, what is added to the patient's name, series and pictures below the patient's folder."""

LABELS = {
    "CT": {"liver": 255},
    "MR": {"liver": 63, "kidney_right": 126, "kidney_left": 189, "spleen": 252},
}


class Reader:
    """Reader `chaos`: the folder `CT` or `MR` of its training set."""

    def detects(self, folder: Path) -> bool:
        """Whether a folder in it has a series and its pictures."""
        return any(case.label for _, case in _cases(folder))

    def read(self, folder: Path) -> Dataset:
        """List the cases; each sequence of MR is one.

        Raises:
            FseftError: CT and MR lie side by side.
        """
        found = _cases(folder)
        channels = {channel for channel, _ in found}
        if len(channels) > 1:
            raise FseftError("holds CT and MR", file=folder, hint="Make a dataset of each.")
        (channel,) = channels
        cases = tuple(sorted((case for _, case in found), key=lambda case: case.name))
        return Dataset(
            name=folder.name,
            reader="chaos",
            channels=(channel,),
            labels=LABELS[channel],
            cases=cases,
        )


def _cases(folder: Path) -> list[tuple[str, Case]]:
    """Channel and case of each series."""
    found = []
    for patient in sorted(folder.iterdir()) if folder.is_dir() else ():
        for channel, sequence, series, ground in SERIES:
            if (patient / series).is_dir():
                label = patient / ground if (patient / ground).is_dir() else None
                found.append(
                    (
                        channel,
                        Case(name=patient.name + sequence, images=(patient / series,), label=label),
                    )
                )
    return found
