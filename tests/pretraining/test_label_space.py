"""Common label space of several datasets: names, label values, and divided pairs."""

from __future__ import annotations

import pytest

from fseft.errors import FseftError
from fseft.pretraining.label_space import LabelMapping, harmonise_datasets, lesion_warnings
from fseft.schemas import ClassFingerprint, Fingerprint
from fseft.volume.laterality import LeftRightPair


def fingerprint(dataset, labels, *, absent=(), meanings=None):
    classes = {
        name: ClassFingerprint(id=value, cases=name not in absent) for name, value in labels.items()
    }
    return Fingerprint(
        dataset=dataset,
        reader="nnunet",
        content="",
        channels=("CT",),
        modality="ct",
        integer=True,
        labels=labels,
        meanings=meanings or {},
        cases=(),
        classes=classes,
        intensities=(),
    )


def test_structures_keep_their_label_values():
    (mapping,) = harmonise_datasets([fingerprint("a", {"lkidney": 4, "Blob": 2})])
    assert mapping == LabelMapping(
        {"lkidney": ("kidney_left",), "Blob": ("blob",)}, {"kidney_left": 4, "blob": 2}, {}
    )
    assert (
        str(mapping)
        == "lkidney -> kidney_left; Blob -> blob; kept as they are, unknown to the vocabulary: Blob"
    )


def test_a_divided_pair_gets_unused_label_values():
    whole, sides = harmonise_datasets(
        [
            fingerprint("a", {"kidneys": 1, "kidney cyst": 2, "liver": 9}),
            fingerprint("b", {"rkidney": 1, "left kidney cyst": 2}),
        ]
    )
    assert whole.pairs == {
        2: LeftRightPair(10, 11, expect_both=False),
        1: LeftRightPair(12, 13, expect_both=True),
    }
    assert whole.labels == {
        "liver": 9,
        "kidney_cyst_left": 10,
        "kidney_cyst_right": 11,
        "kidney_left": 12,
        "kidney_right": 13,
    }
    assert "kidneys -> kidney_left + kidney_right" in str(whole)
    assert sides.pairs == {}


def test_a_declared_structure_that_no_case_contains_is_not_annotated():
    a, b = harmonise_datasets(
        [
            fingerprint("a", {"kidney": 1}),
            fingerprint("b", {"lkidney": 1, "liver": 2}, absent=("lkidney",)),
        ]
    )
    assert (a.labels, b.labels) == ({"kidney": 1}, {"liver": 2})


def test_a_reader_may_define_the_meaning_of_a_name():
    (mapping,) = harmonise_datasets(
        [fingerprint("a", {"cancer": 1}, meanings={"cancer": "lung_tumor"})]
    )
    assert mapping.labels == {"lung_tumor": 1}


def test_lesions_that_only_one_dataset_separates_from_the_organ_are_reported():
    sets = {
        "a": {"liver": 1},
        "b": {"liver": 1, "liver tumour": 2},
        "c": {"kidney": 1},
        "d": {"lung tumour": 1},
    }
    annotations = harmonise_datasets([fingerprint(name, labels) for name, labels in sets.items()])
    (warning,) = lesion_warnings(dict(zip(sets, annotations, strict=True)))
    assert warning.startswith(
        "a has liver, b also liver_tumor: if a labels lesions as liver, the two contradict each other"
    )


def test_bones_by_name_are_parts_of_all_bones():
    with pytest.raises(FseftError, match=r"bone.*rib_1_left"):
        harmonise_datasets([fingerprint("a", {"bone": 1}), fingerprint("b", {"rib_left_1": 1})])
