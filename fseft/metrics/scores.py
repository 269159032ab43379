"""Dice, surface Dice and HD95 of structures on the native grid, and their summary over cases."""

from __future__ import annotations

import csv
import io
import math
import warnings
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fseft.errors import FseftError
from fseft.schemas import Document, FrozenModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]
    Mask = NDArray[np.bool_]

State = Literal["both-present", "missed", "false-positive", "both-empty"]


class StructureScore(FrozenModel):
    """One structure in one case; a metric is None where the structure is in neither labelling.

    The rule for absent structures:

    - in neither (`both-empty`): no metrics; left out of the means and counted;
    - in the reference alone (`missed`): Dice 0, NSD 0, HD95 = diagonal of the image in mm;
    - in the prediction alone (`false-positive`): Dice 0, NSD 0, HD95 = diagonal of the image in mm.
    """

    dice: float | None
    nsd: float | None
    hd95_mm: float | None
    volume_ml: float
    reference_ml: float
    volume_difference_ml: float
    state: State


class ClassSummary(FrozenModel):
    """One structure over all cases: means and sample deviations over the cases that have metrics.

    `volume_difference_ml` is signed: prediction less reference. `cases` counts every case in which the structure
    was scored, `both_empty` those among them without metrics. A deviation needs two values, else it is None.
    """

    dice: float | None
    dice_std: float | None
    nsd: float | None
    nsd_std: float | None
    hd95_mm: float | None
    hd95_mm_std: float | None
    volume_difference_ml: float | None
    cases: int
    missed: int
    false_positive: int
    both_empty: int


class Scores(Document):
    """All scores of a set of cases; the means on top are means over the classes' means."""

    mean_dice: float | None
    mean_nsd: float | None
    mean_hd95_mm: float | None
    tolerance_mm: float
    classes: dict[str, ClassSummary]
    cases: dict[str, dict[str, StructureScore]]


def score_case(
    prediction: Labels,
    reference: Labels,
    ids: Mapping[str, int],
    spacing_mm: Sequence[float],
    tolerance_mm: float = 2.0,
) -> dict[str, StructureScore]:
    """Score the structures of one case; `StructureScore` states the rule for absent ones.

    Where a structure is in both labellings: Dice = 2|A∩B| / (|A| + |B|). NSD is the share of both surfaces
    that lies within the tolerance of the other one (Nikolov et al. 2021, https://arxiv.org/abs/1809.04430),
    with surface elements at subvoxel places and weighted by their area. HD95 is the larger of the two
    directed 95th percentiles of the distances between the centres of surface voxels; a voxel at the border
    of the image is a surface voxel. Both come from MONAI: HD95 costs there what a KD-tree of our own would.

    Args:
        prediction: Labels of shape (i, j, k) on the native grid.
        reference: Labels of the same shape. Pass only the `ids` that were contoured: an absent label
            counts as an absent structure.
        ids: Label value, above 0, of each structure to score.
        spacing_mm: Voxel size along i, j, k.
        tolerance_mm: Surface deviation that NSD accepts.

    Raises:
        FseftError: The shapes differ, a label is not above 0, or the spacing or the tolerance makes no sense.
    """
    from scipy.ndimage import find_objects

    _check(prediction, reference, ids, spacing_mm, tolerance_mm)
    spacing = tuple(float(step) for step in spacing_mm)
    diagonal = math.hypot(
        *(step * length for step, length in zip(spacing, prediction.shape, strict=True))
    )
    largest = max(ids.values(), default=1)
    boxes = [find_objects(labels, max_label=largest) for labels in (prediction, reference)]
    scores = {}
    for name, value in ids.items():
        box = _joint_box(found[value - 1] for found in boxes)
        # A rim of background closes the surface of what touches the image border.
        masks = [np.pad(labels[box] == value, 1) for labels in (prediction, reference)]
        scores[name] = _score(masks[0], masks[1], spacing, float(tolerance_mm), diagonal)
    return scores


def _check(
    prediction: Labels,
    reference: Labels,
    ids: Mapping[str, int],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise FseftError(
            f"prediction of shape {prediction.shape} against reference of shape {reference.shape}",
            hint="Bring both to the grid (i, j, k) of the original image.",
        )
    if len(spacing_mm) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise FseftError(f"spacing {tuple(spacing_mm)} mm", hint="Give three lengths above 0.")
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise FseftError(f"tolerance of {tolerance_mm} mm", hint="Give a length of 0 or more.")
    for name, value in ids.items():
        if value < 1:
            raise FseftError(
                f"structure {name} has the label {value}", hint="Score only labels above 0."
            )


def _joint_box(found: Iterable[tuple[slice, ...] | None]) -> tuple[slice, ...]:
    """The smallest box that holds all that was found; an empty one where nothing was."""
    axes = zip(*(box for box in found if box is not None), strict=True)
    joint = tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in axes)
    return joint or (slice(0),) * 3


def _score(
    prediction: Mask, reference: Mask, spacing: tuple[float, ...], tolerance: float, diagonal: float
) -> StructureScore:
    sizes = [int(np.count_nonzero(mask)) for mask in (prediction, reference)]
    state = _state(*sizes)
    metrics: dict[str, float | None] = {"dice": 0.0, "nsd": 0.0, "hd95_mm": diagonal}
    if state == "both-empty":
        metrics = dict.fromkeys(metrics)
    if state == "both-present":
        nsd, hd95 = _surface_metrics(prediction, reference, spacing, tolerance)
        overlap = int(np.count_nonzero(prediction & reference))
        metrics = {"dice": 2 * overlap / sum(sizes), "nsd": nsd, "hd95_mm": hd95}
    volume, reference_volume = (size * math.prod(spacing) / 1000 for size in sizes)
    return StructureScore(
        **metrics,
        volume_ml=volume,
        reference_ml=reference_volume,
        volume_difference_ml=volume - reference_volume,
        state=state,
    )


def _state(predicted: int, present: int) -> State:
    if predicted and present:
        return "both-present"
    if present:
        return "missed"
    return "false-positive" if predicted else "both-empty"


def _surface_metrics(
    prediction: Mask, reference: Mask, spacing: tuple[float, ...], tolerance: float
) -> tuple[float, float]:
    """NSD and HD95 of two masks that are not empty."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    masks = [torch.from_numpy(mask[None, None]) for mask in (prediction, reference)]
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 warn of an argument that they pass to themselves.
        warnings.filterwarnings("ignore", ".*get_mask_edges:always_return_as_numpy", FutureWarning)
        nsd = compute_surface_dice(
            *masks, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        )
        hd95 = compute_hausdorff_distance(
            *masks, include_background=True, percentile=95, spacing=spacing
        )
    return float(nsd), float(hd95)


def summarise(cases: Mapping[str, Mapping[str, StructureScore]], tolerance_mm: float) -> Scores:
    """Summarise the scores of many cases.

    Args:
        cases: Scores by case and structure; a case may lack structures that others have.
        tolerance_mm: The tolerance that NSD was computed with.
    """
    names = dict.fromkeys(name for scores in cases.values() for name in scores)
    classes = {
        name: _class_summary([scores[name] for scores in cases.values() if name in scores])
        for name in names
    }
    return Scores(
        mean_dice=_mean(summary.dice for summary in classes.values()),
        mean_nsd=_mean(summary.nsd for summary in classes.values()),
        mean_hd95_mm=_mean(summary.hd95_mm for summary in classes.values()),
        tolerance_mm=tolerance_mm,
        classes=classes,
        cases={case: dict(scores) for case, scores in cases.items()},
    )


def _class_summary(scores: Sequence[StructureScore]) -> ClassSummary:
    states = [score.state for score in scores]
    return ClassSummary(
        dice=_mean(score.dice for score in scores),
        dice_std=_deviation(score.dice for score in scores),
        nsd=_mean(score.nsd for score in scores),
        nsd_std=_deviation(score.nsd for score in scores),
        hd95_mm=_mean(score.hd95_mm for score in scores),
        hd95_mm_std=_deviation(score.hd95_mm for score in scores),
        volume_difference_ml=_mean(
            s.volume_difference_ml for s in scores if s.state != "both-empty"
        ),
        cases=len(scores),
        missed=states.count("missed"),
        false_positive=states.count("false-positive"),
        both_empty=states.count("both-empty"),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _deviation(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


def to_csv(scores: Scores) -> str:
    """One line per case and structure; an undefined metric is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "structure", *StructureScore.model_fields])
    for case, structures in scores.cases.items():
        for name, score in structures.items():
            writer.writerow([case, name, *score.model_dump().values()])
    return text.getvalue()
