"""Voxel sizes and fields of view of the training scans, and scans that are unlike them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.schemas import ScanRange

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fseft.schemas import CaseFingerprint
    from fseft.volume.geometry import Geometry

_FACTOR = 2.0
"""Factor beyond the range of the training scans from which a scan counts as unlike them."""


def scan_range(cases: Iterable[CaseFingerprint], names: Collection[str]) -> ScanRange | None:
    """Returns the range of voxel sides and image sides, in mm, or None without cases.

    Args:
        cases: The measured cases of a dataset.
        names: Names of the cases to consider.
    """
    spacings: list[float] = []
    extents: list[float] = []
    for case in cases:
        if case.name not in names:
            continue
        spacings += case.spacing_mm
        extents += [n * side for n, side in zip(case.shape, case.spacing_mm, strict=True)]
    if not spacings:
        return None
    return ScanRange(
        spacing_mm=(min(spacings), max(spacings)), extent_mm=(min(extents), max(extents))
    )


def differences(geometry: Geometry, expected: ScanRange | None) -> list[str]:
    """Describes what sets a scan apart from the training scans, the same text for all such scans.

    Args:
        geometry: Grid of the scan.
        expected: Range of the training scans; None if it is not known.

    Examples:
        >>> import numpy as np
        >>> from fseft.volume.geometry import Geometry
        >>> torso = Geometry((512, 512, 400), np.diag([0.9, 0.9, 1.0, 1.0]))
        >>> differences(torso, ScanRange(spacing_mm=(1.0, 1.0), extent_mm=(30.0, 60.0)))
        ['the field of view differs from that of the training scans (sides of 30 to 60 mm)']
    """
    if expected is None:
        return []
    spacing_mm = geometry.spacing_mm
    extent_mm = [n * side for n, side in zip(geometry.shape, spacing_mm, strict=True)]
    found = []
    for name, sides, (low, high) in (
        ("the voxel size", spacing_mm, expected.spacing_mm),
        ("the field of view", extent_mm, expected.extent_mm),
    ):
        if min(sides) * _FACTOR < low or max(sides) > _FACTOR * high:
            training = f"sides of {low:.3g} to {high:.3g} mm"
            found.append(f"{name} differs from that of the training scans ({training})")
    return found
