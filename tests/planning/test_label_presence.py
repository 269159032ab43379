"""A structure without a label is absent or not annotated, by rule or by declaration."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from fseft.errors import FseftError
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.planning.label_presence import (
    annotated_structures,
    check_missing_label,
    missing_label_rules,
)
from fseft.volume.image import read_labels, write_labels
from fseft.workspace import Workspace
from tests.sample_data import write_dataset


@pytest.fixture
def folder(tmp_path):
    """Case `a` has both structures, case `b` the kidney only."""
    folder = write_dataset(tmp_path / "set", cases=("a", "b"))
    path = folder / "labelsTr" / "b.nii.gz"
    labels = read_labels(path)
    write_labels(path, labels.array[0] * (labels.array[0] == 1), labels.geometry)
    return folder


@pytest.fixture
def annotated(folder, tmp_path):
    dataset = read_dataset(folder)
    fingerprint = fingerprint_dataset(dataset, Workspace(tmp_path / "workspace"))
    return lambda rule="absent": annotated_structures(dataset, fingerprint, rule)


BOTH, KIDNEY = {"Left kidney", "tumour"}, {"Left kidney"}


def test_a_structure_that_any_case_contains_is_annotated_in_all_by_default(annotated):
    assert annotated() == {"a": BOTH, "b": BOTH}
    assert annotated("unannotated") == {"a": BOTH, "b": KIDNEY}


def test_a_declaration_takes_precedence_and_drawn_structures_always_count(folder, annotated):
    (folder / "annotated.json").write_text(json.dumps({"b": ["tumour"]}))
    assert annotated("unannotated") == {"a": BOTH, "b": BOTH}
    (folder / "annotated.json").write_text(json.dumps({"a": [], "b": ["Left kidney"]}))
    assert annotated("absent") == {"a": BOTH, "b": KIDNEY}


def test_an_empty_mask_means_absent_and_a_missing_mask_unannotated(
    tmp_path,
):
    source = write_dataset(tmp_path / "set", cases=("a", "b", "c"))
    folder = tmp_path / "masks"
    for case in ("a", "b", "c"):
        (folder / case / "segmentations").mkdir(parents=True)
        shutil.copy(source / "imagesTr" / f"{case}_0000.nii.gz", folder / case / "ct.nii.gz")
        labels = read_labels(source / "labelsTr" / f"{case}.nii.gz")
        for value, name in ((1, "liver"), (7, "spleen")):
            mask = (labels.array[0] == value) & (case != "b" or name == "liver")
            write_labels(
                folder / case / "segmentations" / f"{name}.nii.gz",
                mask.astype(np.uint8),
                labels.geometry,
            )
    (folder / "c" / "segmentations" / "spleen.nii.gz").unlink()
    dataset = read_dataset(folder)
    fingerprint = fingerprint_dataset(dataset, Workspace(tmp_path / "workspace"))
    both, liver = {"liver", "spleen"}, {"liver"}
    assert annotated_structures(dataset, fingerprint, "absent") == {
        "a": both,
        "b": both,
        "c": liver,
    }
    assert annotated_structures(dataset, fingerprint, "unannotated") == {
        "a": both,
        "b": liver,
        "c": liver,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "is not a valid list of annotated structures"),
        ("{", "is not valid JSON"),
        ('{"a": "tumour"}', "is not a valid list of annotated structures"),
        ('{"c": ["tumour"]}', "unknown case 'c'"),
        ('{"a": ["tumor"]}', "unknown structure 'tumor'. Did you mean tumour"),
    ],
)
def test_an_invalid_declaration_is_refused(text, message, folder, annotated):
    (folder / "annotated.json").write_text(text)
    with pytest.raises(FseftError, match=message):
        annotated()


def test_a_rule_is_for_one_dataset_or_for_all_others():
    datasets = {"x": "absent", "y": "unannotated"}
    assert missing_label_rules({}, datasets) == datasets
    rules = check_missing_label({"y": "absent", "": "unannotated"})
    assert missing_label_rules(rules, datasets) == {"x": "unannotated", "y": "absent"}


def test_former_names_of_the_rules_are_accepted():
    rules = check_missing_label({"y": "not-there", "": "not-drawn"})
    assert rules == {"y": "absent", "": "unannotated"}


def test_unknown_rules_and_datasets_are_refused():
    with pytest.raises(FseftError, match="unknown rule for missing labels 'maybe'"):
        check_missing_label({"x": "maybe"})
    with pytest.raises(FseftError, match="unknown dataset 'z'"):
        missing_label_rules({"z": "absent"}, {"x": "absent", "y": "absent"})
