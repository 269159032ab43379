"""Datasets that are learned together agree on names; a pair is divided where another one has its
sides.
"""

from __future__ import annotations

import pytest

from fseft.anatomy.harmonisation import HarmonisedLabels, harmonise_labels
from fseft.anatomy.vocabulary import resolve_names
from fseft.errors import FseftError

SIDES = ("kidney_left", "kidney_right")


def agreed(wanted=(), **datasets):
    return harmonise_labels(
        {name: resolve_names(names) for name, names in datasets.items()}, wanted
    )


def test_datasets_without_a_pair_keep_their_structures():
    found = agreed(a=["Liver", "lkidney"], b=["liver", "Blob"])
    assert found["a"] == HarmonisedLabels({"Liver": "liver", "lkidney": "kidney_left"}, {})
    assert found["b"] == HarmonisedLabels({"liver": "liver", "Blob": "blob"}, {})


def test_a_pair_is_divided_where_another_dataset_has_a_side():
    found = agreed(a=["kidneys", "liver"], b=["lkidney"])
    assert found["a"] == HarmonisedLabels({"liver": "liver"}, {"kidneys": SIDES})
    assert found["b"].pairs == {}


def test_a_pair_stays_whole_where_nobody_has_its_sides():
    assert agreed(a=["kidney"], b=["Kidneys", "lung_left"])["b"].structures["Kidneys"] == "kidney"


def test_a_pair_is_divided_for_a_user_who_names_a_side():
    found = agreed(["left kidney"], a=["kidney", "liver"])["a"]
    assert found == HarmonisedLabels({}, {"kidney": SIDES}, unrequested=frozenset({"kidney_right"}))


def test_what_is_wanted_may_be_called_by_any_name():
    found = agreed(["Gall Bladder", "blob"], a=["gall", "liver"], b=["Blob", "spleen"])
    assert found["a"].structures == {"gall": "gallbladder"}
    assert found["b"].structures == {"Blob": "blob"}


def test_a_wanted_pair_stands_for_both_sides():
    found = agreed(["kidney"], a=["kidney", "liver"], b=["rkidney"])
    assert found["a"] == HarmonisedLabels({}, {"kidney": SIDES})
    assert found["b"].structures == {"rkidney": "kidney_right"}


@pytest.mark.parametrize(
    ("datasets", "wanted", "message"),
    [
        (
            {"a": ["gall", "Gall bladder"]},
            (),
            "a: names gallbladder twice: 'gall' and 'Gall bladder'. Rename one",
        ),
        (
            {"a": ["kidney", "lkidney"]},
            (),
            "a has kidney, and a parts of it .kidney_left.*Request either",
        ),
        (
            {"a": ["lungs"], "b": ["left lung upper lobe", "left lung lower lobe"]},
            (),
            "a has lung, and b parts of it .lung_lower_lobe_left, lung_upper_lobe_left.",
        ),
        (
            {"a": ["lung_left"], "b": ["left lung upper lobe"]},
            (),
            "a has lung_left, and b parts of it",
        ),
        (
            {"a": ["tumour"], "b": ["Cancer"]},
            (),
            "a and b share the ambiguous structure name 'Cancer'",
        ),
        (
            {"a": ["class_1"], "b": ["class_1"]},
            (),
            "a and b share the ambiguous structure name 'class_1'.*dataset.json",
        ),
        (
            {"a": ["liver"]},
            ["livr"],
            "no dataset has the requested structure 'livr'. Did you mean liver",
        ),
        ({"a": ["liver"], "b": ["spleen"]}, ["liver"], "b: annotates none of liver"),
    ],
)
def test_names_that_contradict_each_other_are_refused(datasets, wanted, message):
    with pytest.raises(FseftError, match=message):
        agreed(wanted, **datasets)


def test_a_whole_and_its_parts_do_not_conflict_where_one_of_them_is_left_out():
    found = agreed(["lung"], a=["lung"], b=["left lung upper lobe", "lung_left"])
    assert found["a"].pairs == {"lung": ("lung_left", "lung_right")}
    assert found["b"].structures == {"lung_left": "lung_left"}
