"""What a label file does not hold is either not there or was never drawn, by rule or by declaration."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from fseft.errors import FseftError
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.pretraining.label_presence import absent_means, annotated_structures
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
    return lambda rule="not-there": annotated_structures(folder, dataset, fingerprint, rule)


BOTH, KIDNEY = {"Left kidney", "tumour"}, {"Left kidney"}


def test_what_is_drawn_somewhere_is_annotated_everywhere_unless_absence_means_not_drawn(annotated):
    assert annotated() == {"a": BOTH, "b": BOTH}
    assert annotated("not-drawn") == {"a": BOTH, "b": KIDNEY}


def test_a_declaration_goes_before_the_rule_and_what_is_drawn_always_counts(folder, annotated):
    (folder / "annotated.json").write_text(json.dumps({"b": ["tumour"]}))
    assert annotated("not-drawn") == {"a": BOTH, "b": BOTH}
    (folder / "annotated.json").write_text(json.dumps({"a": [], "b": ["Left kidney"]}))
    assert annotated("not-there") == {"a": BOTH, "b": KIDNEY}


def test_where_structures_have_masks_an_empty_one_says_that_there_is_none_and_a_missing_one_nothing(
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
    assert annotated_structures(folder, dataset, fingerprint, "not-there") == {
        "a": both,
        "b": both,
        "c": liver,
    }
    assert annotated_structures(folder, dataset, fingerprint, "not-drawn") == {
        "a": both,
        "b": liver,
        "c": liver,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "is no declaration"),
        ("{", "is no declaration"),
        ('{"a": "tumour"}', "is no declaration"),
        ('{"c": ["tumour"]}', "there is no case 'c'"),
        ('{"a": ["tumor"]}', "there is no structure 'tumor'. Did you mean tumour"),
    ],
)
def test_a_declaration_that_is_none_is_refused(text, message, folder, annotated):
    (folder / "annotated.json").write_text(text)
    with pytest.raises(FseftError, match=message):
        annotated()


def test_a_rule_is_said_of_all_datasets_or_of_one():
    assert absent_means([], ["x", "y"]) == {"x": "not-there", "y": "not-there"}
    assert absent_means(["y=not-there", "not-drawn"], ["x", "y"]) == {
        "x": "not-drawn",
        "y": "not-there",
    }
    for text, message in (
        ("x=maybe", "there is no 'maybe'"),
        ("z=not-drawn", "no dataset 'z' is given"),
    ):
        with pytest.raises(FseftError, match=message):
            absent_means([text], ["x", "y"])
