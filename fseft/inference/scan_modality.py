"""Known modality of a scan, compared with that of the training scans."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fseft.inference.scan_channels import declared_names
from fseft.volume.dicom_files import series_modality
from fseft.volume.intensity import guess_modality, modality_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fseft.schemas import Modality
    from fseft.volume.geometry import Array

_AIR_HU = (-1100, -900)
_AIR_FRACTION = 0.1  # of voxels; phase images of MR have 0.02 in any interval of this length


class KnownModality(NamedTuple):
    """Modality of a scan, "ct" or "mr", and what states it."""

    modality: Modality
    source: str


def known_modality(path: Path, array: Array) -> KnownModality | None:
    """Returns the modality of a scan, or None where nothing states it.

    The DICOM header takes precedence over channel names in a `dataset.json` and over values.

    Args:
        path: Its first file, or the folder of its series.
        array: (C, i, j, k), as stored.
    """
    if path.is_dir() and (modality := series_modality(path)):
        return KnownModality(modality, "its DICOM header")
    modality = guess_modality(_channel_names(path.absolute().parent), np.inf)
    if modality != "other":
        return KnownModality(modality, "channel names of dataset.json")
    low, high = _AIR_HU
    sample = array[:, ::3, ::3, ::3]
    fraction = float(((sample >= low) & (sample <= high)).mean())
    if fraction >= _AIR_FRACTION:
        return KnownModality("ct", f"{fraction:.0%} of voxels have the HU of air")
    return None


def _channel_names(folder: Path) -> list[str]:
    """Returns the declared channels of the scans in a folder, such as imagesTs of a dataset."""
    is_part_of_dataset = folder.name.startswith("images")
    return declared_names(folder) or (declared_names(folder.parent) if is_part_of_dataset else [])


def modality_difference(known: KnownModality | None, expected: Iterable[Modality]) -> str:
    """Describes the difference between a scan and the training scans; empty if none is known.

    Args:
        known: Modality of the scan.
        expected: Modalities of the training scans; "other" fits any scan.
    """
    for modality in expected:
        if known and modality not in ("other", known.modality):
            return (
                f"the scan is {modality_name(known.modality)} ({known.source}), and the network "
                f"was trained on {modality_name(modality)}"
            )
    return ""
