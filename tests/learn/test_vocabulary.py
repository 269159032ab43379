"""One structure has many names: spelling, side and public aliases."""

from __future__ import annotations

import pytest

from fseft.errors import FseftError
from fseft.learn.vocabulary import canonical, has_sides, match_classes, meaning

CLASSES = ("liver", "kidney_left", "spleen")


@pytest.mark.parametrize(
    "name",
    ["kidney_left", "left kidney", "Left kidney", "Kidney (L)", "kidney-lt", "LEFT_KIDNEY", "leftKidney", "KidneyLeft"],
)
def test_one_structure_has_one_canonical_name(name):
    assert canonical(name) == "kidney_left"


def test_names_in_any_script_stay_apart():
    assert canonical("肝臓") == "肝臓"
    assert canonical("Œsophage") == "œsophage"
    assert match_classes(["Печень"], ["Почка"]) == {}


@pytest.mark.parametrize("name", ["Left kidney", "kidney (l)", "lkidney"])
def test_a_structure_is_matched_with_the_class_of_the_same_meaning(name):
    assert match_classes([name, "tumour"], CLASSES) == {name: "kidney_left"}


@pytest.mark.parametrize("name", ["right kidney", "rkidney", "kidney", "kidneys left", "iver"])
def test_a_structure_of_another_meaning_is_not_matched(name):
    assert match_classes([name], CLASSES) == {}


@pytest.mark.parametrize("names", [["kidney_left"], ["Lung (R)", "liver"], ["lkidney", "rkidney"]])
def test_names_that_say_left_or_right_have_sides(names):
    assert has_sides(names)


def test_names_that_begin_with_l_or_r_by_nature_have_no_sides():
    assert not has_sides(["liver", "rectum", "leftover", "ribs"])


@pytest.mark.parametrize(
    "names",
    [
        ("Gall Bladder", "gall", "gallbladder"),
        ("Postcava", "IVC", "inferior vena cava"),
        ("ladrenal", "Left Adrenal Gland", "adrenal_gland_left", "left suprarenal gland"),
        ("Portal Vein and Splenic Vein", "psv", "portal and splenic veins"),
        ("Celiac Truck", "celiac_trunk"),
        ("pancreatic tumor", "Pancreas Tumor", "pancreas tumour"),
        ("urinary_bladder", "Bladder"),
        ("rlung", "Lung (R)", "Right Lung"),
    ],
)
def test_public_names_of_one_structure_match_each_other(names):
    for name in names:
        for known in names:
            if known[0] not in "lr" or " " in known:
                assert match_classes([name], [known]) == {name: known}, (name, known)


def test_an_alias_keeps_the_side():
    assert meaning("right adrenal") == "adrenal_gland_right"
    assert match_classes(["adrenal_left"], ["Right Adrenal Gland"]) == {}


def test_what_the_user_says_goes_before_the_names():
    given = {"tumour": "spleen", "liver": ""}
    assert match_classes(["liver", "tumour", "spleen"], CLASSES, given) == {"tumour": "spleen", "spleen": "spleen"}


@pytest.mark.parametrize(
    ("given", "words"), [({"livr": "liver"}, "no structure 'livr'"), ({"liver": "splen"}, "spleen")]
)
def test_a_mapping_of_unknown_names_is_refused(given, words):
    with pytest.raises(FseftError, match=words):
        match_classes(["liver"], CLASSES, given)
