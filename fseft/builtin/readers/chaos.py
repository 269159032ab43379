"""CHAOS: DICOM series with PNG labels, `1/DICOM_anon` and `1/Ground`, for MR below `1/T2SPIR`."""

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
"""Channel, suffix of the patient's name, and folders of the series and the PNG labels."""

LABELS = {
    "CT": {"liver": 255},
    "MR": {"liver": 63, "kidney_right": 126, "kidney_left": 189, "spleen": 252},
}


class Reader:
    """Reader `chaos`: the folder `CT` or `MR` of its training set."""

    def detects(self, folder: Path) -> bool:
        """Returns whether a subfolder contains a series and its labels."""
        return any(case.label for _, case in _cases(folder))

    def read(self, folder: Path) -> Dataset:
        """Lists the cases; each sequence of MR is a case.

        Raises:
            FseftError: The folder contains both CT and MR.
        """
        channels_and_cases = _cases(folder)
        channels = {channel for channel, _ in channels_and_cases}
        if len(channels) > 1:
            hint = "Make a dataset of each."
            raise FseftError("contains CT and MR", file=folder, hint=hint)
        (channel,) = channels
        cases = [case for _, case in channels_and_cases]
        return Dataset(
            name=folder.name,
            reader="chaos",
            channels=(channel,),
            labels=LABELS[channel],
            cases=tuple(sorted(cases, key=lambda case: case.name)),
        )


def _cases(folder: Path) -> list[tuple[str, Case]]:
    """Returns channel and case of each series."""
    cases = []
    for patient in sorted(folder.iterdir()) if folder.is_dir() else ():
        for channel, suffix, series, ground_truth in SERIES:
            image, label = patient / series, patient / ground_truth
            if image.is_dir():
                case = Case(
                    name=patient.name + suffix,
                    images=(image,),
                    label=label if label.is_dir() else None,
                )
                cases.append((channel, case))
    return cases
