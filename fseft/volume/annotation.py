"""Voxels of label maps that are not annotated: an ignore label, and slices that nobody drew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.errors import FseftError, pluralise
from fseft.schemas import FULLY_ANNOTATED
from fseft.volume.label_values import UNANNOTATED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from fseft.schemas import Annotation
    from fseft.volume.fingerprint import CaseMeasurement

    Array = npt.NDArray[Any]
    Mask = npt.NDArray[np.bool_]

_MIN_SINGLE = 2  # single slices: one alone is a flat structure


def mark_unannotated(labels: Array, annotation: Annotation) -> Array:
    """Returns labels with `UNANNOTATED` in the voxels that do not count, and 0 as background.

    Args:
        labels: (..., i, j, k), as stored.
        annotation: Which voxels count.

    Returns:
        The same array, if all voxels count.

    Raises:
        FseftError: The labels contain `UNANNOTATED` themselves.
    """
    if annotation.ignore != UNANNOTATED and _may_hold(labels) and (labels == UNANNOTATED).any():
        cause = f"contains the label {UNANNOTATED}, which stands for voxels that do not count"
        hint = "Give the structure another value, or state it as the ignore label."
        raise FseftError(cause, hint=hint)
    if annotation == FULLY_ANNOTATED:
        return labels
    missing = _missing(labels, annotation)
    marked = labels.astype(np.promote_types(labels.dtype, np.uint16))
    marked[labels == annotation.background] = 0
    marked[missing] = UNANNOTATED
    return marked


def is_annotated(labels: Array) -> Mask:
    """Returns a mask of the voxels that count, of labels that `mark_unannotated` returned."""
    mask: Mask = labels != UNANNOTATED
    return mask


def is_drawn(labels: Array) -> Mask:
    """Returns a mask of the voxels of any structure, of labels that `mark_unannotated` returned."""
    mask: Mask = (labels != 0) & (labels != UNANNOTATED)
    return mask


def drawn_slices(drawn: Mask) -> tuple[int, Mask] | None:
    """Finds out whether a case is drawn in single slices, such as every fifth one.

    That is: along an axis, at least half of the labelled voxels are in slices between slices
    without a label, and at least half of these single slices overlap the next one, as slices of one
    organ do. A complete organ with a stray slice, or two flat lesions, are not.

    Args:
        drawn: (i, j, k), True in the voxels with any label.

    Returns:
        The axis with the fewest drawn slices, and a mask of its slices with a label; None if the
        case is drawn in full.

    Examples:
        >>> drawn = np.zeros((9, 4, 4), bool)
        >>> drawn[::4, 1:3, 1:3] = True
        >>> axis, slices = drawn_slices(drawn)
        >>> axis, np.flatnonzero(slices).tolist()
        (0, [0, 4, 8])
    """
    candidates = []
    for axis in range(3):
        planes = np.moveaxis(drawn, axis, 0)
        slices = np.asarray(planes.any((1, 2)))
        if _in_single_slices(planes, slices):
            candidates.append((np.count_nonzero(slices) / len(slices), axis, slices))
    if not candidates:
        return None
    _, axis, slices = min(candidates, key=lambda candidate: candidate[:2])
    return axis, slices


def annotation_warnings(cases: Sequence[CaseMeasurement]) -> list[str]:
    """Warns of cases of which no voxel counts, and of slices that count though nobody drew them.

    Args:
        cases: All cases of a dataset.
    """
    labelled = [case for case in cases if case.labelled]
    warnings = []
    if empty := [case.name for case in labelled if not case.annotated]:
        count = pluralise(len(empty), "case")
        warnings.append(f"{count} without any annotated voxel ({', '.join(empty)}): left out")
    sparse = [case for case in labelled if case.slices and case.annotated == 1]
    if sparse and 2 * len(sparse) >= len(labelled):
        first = sparse[0]
        drawn, total = first.slices or (0, 0)
        warnings.append(
            f"{len(sparse)} of {pluralise(len(labelled), 'labelled case')} have labels in single "
            f"slices only ({first.name}: {drawn} of {total} slices), and the other slices count as "
            "background: if nobody labelled these, set `annotated_slices` to auto"
        )
    return warnings


def _in_single_slices(planes: Mask, slices: Mask) -> bool:
    """Returns whether most labelled voxels are in single slices of an organ; see `drawn_slices`.

    Args:
        planes: (slices, rows, columns), True in the voxels with any label.
        slices: (slices), True in those with a label.
    """
    edges = np.concatenate([[False], slices, [False]])
    single = np.flatnonzero(slices & ~edges[:-2] & ~edges[2:])
    if len(single) < _MIN_SINGLE:
        return False
    chosen = planes[single]
    overlap: Mask = np.ones(len(single) - 1, bool)
    for axis in (1, 2):
        extent = np.asarray(chosen.any(axis))
        overlap &= (extent[1:] & extent[:-1]).any(1)
    is_most = 2 * np.count_nonzero(chosen) >= np.count_nonzero(planes)
    return bool(is_most and 2 * np.count_nonzero(overlap) >= len(overlap))


def _may_hold(labels: Array) -> bool:
    """Returns whether the type of labels has the value `UNANNOTATED`, so that a search pays."""
    return bool(np.iinfo(labels.dtype).max >= UNANNOTATED)


def _missing(labels: Array, annotation: Annotation) -> Mask:
    """Returns a mask of the voxels that do not count."""
    missing: Mask = np.zeros(labels.shape, bool)
    if annotation.ignore is not None:
        missing |= labels == annotation.ignore
    if annotation.slices == "auto":
        volume = labels.reshape(labels.shape[-3:])
        empty = 0 if annotation.ignore is None else annotation.ignore
        found = drawn_slices((volume != 0) & (volume != empty))
        if found:
            axis, slices = found
            missing |= ~np.expand_dims(slices, [other for other in range(3) if other != axis])
    return missing
