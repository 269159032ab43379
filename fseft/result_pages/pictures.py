"""Pictures of cases: three planes with the outlines of prediction and reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.metrics.scores import mean
from fseft.reporting.figures import (
    OTHER,
    PREDICTION,
    REFERENCE,
    WINDOW_HU,
    distinct_colours,
    encode_png,
)
from fseft.reporting.page import Figure, Panel, Section
from fseft.reporting.planes import draw_planes
from fseft.result_pages.case_arrays import read_arrays
from fseft.volume.intensity import guess_modality
from fseft.volume.label_values import present_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fseft.reporting.planes import Plane
    from fseft.result_pages.case_arrays import CaseArrays
    from fseft.result_pages.cases import CaseResult, PredictedCases

ABOUT_PLANES = (
    "The slices are those with the largest cross-sections. R, L, A, P, S and I are the patient's "
    "right, left, front, back, head and feet."
)


def picture_section(
    predicted: PredictedCases, volumes: Mapping[str, Mapping[str, float]]
) -> Section:
    """Shows the worst, the median and the best case, or the smallest to the largest segmentation.

    Args:
        predicted: The cases.
        volumes: Case -> structure -> volume in ml.

    Raises:
        FseftError: A scan or a reference is missing, damaged, or on another grid.
    """
    ranked = predicted.ranked()
    if ranked:
        chosen = select_cases(ranked, ("Worst case", "Median case", "Best case"))
        order = f"Cases by their mean {predicted.metrics[0].title}."
    else:
        by_volume = sorted(predicted.cases, key=lambda case: sum(volumes[case.name].values()))
        names = ("Smallest segmentation", "Median segmentation", "Largest segmentation")
        chosen = select_cases(by_volume, names)
        order = "Cases by the volume of all structures, as there are no scores."
    figures = [
        figure
        for place, case in chosen.items()
        for figure in case_figures(case, place, describe_score(case, predicted))
    ]
    return Section("Pictures", f"{order} {ABOUT_PLANES}", figures=figures)


def select_cases(cases: Sequence[CaseResult], names: Sequence[str]) -> dict[str, CaseResult]:
    """Returns the first, the middle and the last case by the names of these places.

    Args:
        cases: The cases, in order; at least one.
        names: Names of the three places.
    """
    first, middle, last = names
    if len(cases) == 1:
        return {"Case": cases[0]}
    if len(cases) == 2:
        return {first: cases[0], last: cases[1]}
    return {first: cases[0], middle: cases[len(cases) // 2], last: cases[-1]}


def describe_score(case: CaseResult, predicted: PredictedCases) -> str:
    """Describes the first metric of a case in words; empty without scores."""
    if not predicted.metrics:
        return ""
    metric = predicted.metrics[0]
    values = {name: score.metrics.get(metric.key) for name, score in case.scores.items()}
    defined = {name: value for name, value in values.items() if value is not None}
    if not defined:
        return ""
    text = f"{metric.title} {metric.text({metric.key: mean(defined.values())})}"
    if len(defined) == 1:
        return f"{text}."
    worst = min(defined, key=lambda name: metric.rank(defined[name]))
    value = metric.text({metric.key: defined[worst]})
    return f"{text}, the mean of {len(defined)} structures; the worst is {worst}, {value}."


def case_figures(case: CaseResult, place: str, score: str = "") -> Iterator[Figure]:
    """Yields the comparison with the reference, if there is one, and the predicted structures.

    Args:
        case: The case.
        place: Why it is shown, such as "Worst case".
        score: Its score in words.

    Raises:
        FseftError: A file is missing, damaged, or on another grid.
    """
    arrays = read_arrays(case)
    title = f"{place}: {case.name}"
    if arrays.reference is not None:
        yield comparison(arrays, title, score)
    if arrays.reference is None or len(case.labels) > 1:
        yield _structures(arrays, case.labels, "" if arrays.reference is not None else title)


def comparison(arrays: CaseArrays, title: str, score: str = "") -> Figure:
    """Draws prediction and reference in three planes.

    Args:
        arrays: The voxels.
        title: Heading.
        score: A sentence on the score.
    """
    planes = draw_planes(
        arrays.image,
        arrays.compared,
        arrays.geometry,
        {},
        reference=arrays.reference,
        chosen_by=arrays.chosen_by,
        window=_window(arrays),
    )
    legend = {
        "reference": REFERENCE,
        "prediction": PREDICTION,
        "both, but different structures": OTHER,
    }
    filled = "Outlines of both; where they differ, the area is filled."
    return Figure(f"{score} {filled}", legend=legend, panels=_panels(planes), title=title)


def _structures(arrays: CaseArrays, labels: Mapping[str, int], title: str) -> Figure:
    by_value = structure_palette(labels)
    planes = draw_planes(
        arrays.image,
        arrays.labels,
        arrays.geometry,
        by_value,
        chosen_by=arrays.chosen_by,
        window=_window(arrays),
    )
    present = set(present_values(arrays.labels))
    legend = {name: by_value[value] for name, value in labels.items() if value in present}
    missing = [name for name, value in labels.items() if value not in present]
    caption = "The predicted structures."
    if missing:
        caption += f" Not found in this scan: {', '.join(missing)}."
    return Figure(caption, legend=legend, panels=_panels(planes), title=title)


def structure_palette(labels: Mapping[str, int]) -> dict[int, tuple[int, ...]]:
    """Returns a colour for each voxel value.

    Args:
        labels: Structure -> voxel value.
    """
    colours = map(tuple, distinct_colours(len(labels)).tolist())
    return dict(zip(labels.values(), colours, strict=True))


def _panels(planes: Sequence[Plane]) -> list[Panel]:
    return [Panel(plane.title, encode_png(plane.picture)) for plane in planes]


def _window(arrays: CaseArrays) -> tuple[float, float] | None:
    modality = guess_modality(("",), float(arrays.image.min()))
    return WINDOW_HU if modality == "ct" else None
