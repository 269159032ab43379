"""Logs remarks on scans: what differs from the training scans, and what was not found."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.inference.segment_case import Remarks

logger = logging.getLogger(__name__)

_MAX_NAMED = 10  # scans that an error lists


class RemarkLog:
    """Logs remarks on scans, each once: in this process as soon as a scan is read."""

    def __init__(self) -> None:
        self._warnings: set[str] = set()
        self._differences: dict[str, list[str]] = {}

    def log(self, name: str, remarks: Remarks) -> None:
        """Logs new warnings of a scan, and differences that no other scan had."""
        for warning in remarks.warnings:
            if warning not in self._warnings:
                self._warnings.add(warning)
                logger.warning("%s", warning)
        for difference in remarks.differences:
            names = self._differences.setdefault(difference, [])
            if name in names:
                continue
            names.append(name)
            if len(names) == 1:
                logger.warning("%s: %s; check the segmentation", name, difference)

    def summarise(self) -> None:
        """Logs the differences that several scans have, with their names."""
        for difference, names in self._differences.items():
            if len(names) > 1:
                logger.warning("%s: %s; check the segmentations", listed(names), difference)


def listed(names: Sequence[str]) -> str:
    """Returns the first names of scans, separated by commas."""
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
