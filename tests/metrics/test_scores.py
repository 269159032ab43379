"""Scores are averaged over cases and classes, and their files keep the keys of the first release."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from fseft.metrics.scores import (
    ClassSummary,
    Scores,
    StructureScore,
    aggregate_scores,
    to_csv,
)
from fseft.metrics.selection import select_metrics

METRICS = select_metrics(["dice", "nsd", "hd95"])


def structure(dice, state="both-present", hd95=4.0):
    distance = None if dice is None else hd95
    return StructureScore(
        metrics={"dice": dice, "nsd": dice, "hd95_mm": distance},
        volume_ml=1,
        reference_ml=1,
        state=state,
    )


CASES = {
    "a": {"liver": structure(0.9), "spleen": structure(None, "both-empty")},
    "b": {"liver": structure(0.7), "spleen": structure(0.0, "missed", hd95=100.0)},
    "c": {"liver": structure(0.0, "false-positive"), "gland": structure(None, "both-empty")},
}
SCORES = aggregate_scores(CASES, 2.0, metrics=METRICS)


def test_a_class_is_averaged_over_the_cases_in_which_it_is_defined():
    liver, spleen, gland = (SCORES.classes[name] for name in ("liver", "spleen", "gland"))
    assert liver.mean["dice"] == pytest.approx(1.6 / 3)
    assert liver.std["dice"] == pytest.approx(np.std([0.9, 0.7, 0.0], ddof=1))
    assert spleen.mean == {"dice": 0, "nsd": 0, "hd95_mm": 100}
    assert spleen.std["dice"] is None
    assert gland.mean["dice"] is None


def test_the_mean_is_over_the_means_of_the_classes():
    assert SCORES.mean["dice"] == pytest.approx(0.8 / 3)
    assert SCORES.mean["hd95_mm"] == pytest.approx((4 + 100) / 2)


def test_missed_false_positive_and_empty_cases_are_counted():
    counts = {}
    for name, summary in SCORES.classes.items():
        counts[name] = (
            summary.cases,
            summary.missed,
            summary.false_positive,
            summary.both_empty,
        )
    assert counts == {"liver": (3, 0, 1, 0), "spleen": (2, 1, 0, 1), "gland": (1, 0, 0, 1)}


def test_no_cases_have_no_mean():
    scores = aggregate_scores({}, 2.0, metrics=METRICS)
    assert scores.mean["dice"] is None
    assert to_csv(scores) == "\n"


def test_the_document_survives_json_and_leads_with_the_mean():
    text = SCORES.model_dump_json()
    assert Scores.model_validate_json(text) == SCORES
    assert list(json.loads(text))[:2] == ["schema_version", "mean_dice"]


FIRST_RELEASE = """
{"schema_version": 1, "mean_dice": 0.5, "mean_nsd": 0.25, "mean_hd95_mm": 3.0, "tolerance_mm": 2.0,
 "classes": {"liver": {"dice": 0.5, "dice_std": null, "nsd": 0.25, "nsd_std": null, "hd95_mm": 3.0,
  "hd95_mm_std": null, "volume_difference_ml": -1.0, "cases": 1, "missed": 0, "false_positive": 0,
  "both_empty": 0}},
 "cases": {"a": {"liver": {"dice": 0.5, "nsd": 0.25, "hd95_mm": 3.0, "volume_ml": 1.0,
  "reference_ml": 2.0, "volume_difference_ml": -1.0, "state": "both-present"}}}}
"""


def test_a_document_of_the_first_release_is_read_and_written_with_its_keys():
    scores = Scores.model_validate_json(FIRST_RELEASE)
    assert scores.mean == {"dice": 0.5, "nsd": 0.25, "hd95_mm": 3.0}
    assert scores.classes["liver"].std == {"dice": None, "nsd": None, "hd95_mm": None}
    assert scores.cases["a"]["liver"].metrics["volume_difference_ml"] == -1
    written = json.loads(scores.model_dump_json())
    assert written.pop("metrics") == []
    assert written == json.loads(FIRST_RELEASE)


def test_a_key_that_cannot_be_a_metric_is_refused():
    with pytest.raises(ValueError, match="median_dice"):
        Scores(tolerance_mm=2.0, classes={}, cases={}, median_dice=0.5)
    with pytest.raises(ValueError, match="valid number"):
        ClassSummary(cases=1, missed=0, false_positive=0, both_empty=0, std={}, note="text")


def test_csv_has_a_line_per_structure_and_empty_cells_for_undefined_values():
    rows = list(csv.DictReader(io.StringIO(to_csv(SCORES))))
    assert [(row["case"], row["structure"]) for row in rows] == [
        ("a", "liver"),
        ("a", "spleen"),
        ("b", "liver"),
        ("b", "spleen"),
        ("c", "liver"),
        ("c", "gland"),
    ]
    assert (rows[0]["dice"], rows[1]["dice"], rows[1]["state"]) == ("0.9", "", "both-empty")
