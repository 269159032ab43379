"""One structure has many names: spelling, side and public aliases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft.anatomy.vocabulary import (
    ancestors,
    has_sides,
    lookup,
    match_classes,
    normalise_name,
    resolve_name,
    resolve_names,
    show_resolved,
    split_pair,
    vocabulary,
)
from fseft.builtin.models.shared.labels import (
    BTCV_13,
    FSEFT_29,
    TOTALSEGMENTATOR_104,
    TOTALSEGMENTATOR_117,
    UNIVERSAL_32,
    VISTA3D_132,
)
from fseft.builtin.readers.challenges import LAYOUTS
from fseft.builtin.readers.folders import MEANINGS
from fseft.errors import FseftError


def _names(text):
    return tuple(" ".join(name.split()) for name in text.split(","))


CLASSES = ("liver", "kidney_left", "spleen")
TEMPLATE_29 = _names("""
    spleen, rkidney, lkidney, gall, esophagus, liver, stomach, aorta, postcava, psv, pancreas, radrenal, ladrenal,
    duodenum, bladder, prost_ut, liver_tumor, kidney_tumor, kidney_cyst, celiac_truck, rlung, llung, bone, brain,
    lung_tumor, pancreas_tumor, hv, hvt, colon_tumor
""")
FLARE22_13 = _names("""
    liver, right kidney, spleen, pancreas, aorta, IVC, RAG, LAG, gallbladder, esophagus, stomach, duodenum, left kidney
""")
AMOS_15 = _names("""
    spleen, right kidney, left kidney, gall bladder, esophagus, liver, stomach, arota, postcava, pancreas,
    right adrenal gland, left adrenal gland, duodenum, bladder, prostate/uterus
""")
BTCV_SHORT = _names(
    "spleen, rkid, lkid, gall, eso, liver, sto, aorta, IVC, veins, pancreas, rad, lad"
)
SETS = {
    "fseft": FSEFT_29,
    "template": TEMPLATE_29,
    "universal": UNIVERSAL_32,
    "totalsegmentator v1": TOTALSEGMENTATOR_104,
    "totalsegmentator v2": TOTALSEGMENTATOR_117,
    "btcv": BTCV_13,
    "btcv in short": tuple(MEANINGS["btcv"].get(name, name) for name in BTCV_SHORT),
    "flare22": FLARE22_13,
    "amos": AMOS_15,
    "vista3d": VISTA3D_132,
    **{layout.name: tuple(layout.labels) for layout in LAYOUTS},
    "ct-org as it calls them": ("Liver", "Bladder", "Lungs", "Kidneys", "Bone", "Brain"),
    **{
        f"msd {task}": tuple(meanings.values())
        for task, meanings in MEANINGS.items()
        if task != "btcv"
    },
    "msd Colon": ("colon cancer primaries",),
    "chaos": ("Liver", "Right kidney", "Left kidney", "Spleen"),
    "headneck": (
        "brainstem",
        "spinal_cord",
        "parotid_right",
        "parotid_left",
        "esophagus",
        "larynx",
        "mandible",
    ),
}
PAIRS = sorted(name for name, row in vocabulary().items() if row.sides)


@pytest.mark.parametrize("name", SETS)
def test_every_class_of_a_public_label_set_is_known(name):
    assert [one for one in SETS[name] if lookup(one) is None] == []


@pytest.mark.parametrize("name", SETS)
def test_classes_of_one_set_stay_apart(name):
    meant = [lookup(one) for one in SETS[name]]
    twice = sorted({one for one in meant if meant.count(one) > 1})
    assert twice == (
        ["liver_tumor"] if name == "vista3d" else []
    )  # it has "hepatic tumor" and "liver tumor"


def test_label_sets_agree_where_they_mean_the_same():
    meant = {name: {lookup(one) for one in names} for name, names in SETS.items()}
    assert meant["template"] == meant["fseft"]
    organs = meant["flare22"]
    assert (
        organs
        <= meant["universal"]
        & meant["fseft"]
        & meant["totalsegmentator v1"]
        & meant["totalsegmentator v2"]
    )
    assert organs <= meant["vista3d"]
    assert organs - meant["amos"] == set()
    assert organs - meant["btcv"] == {"duodenum"}
    assert meant["totalsegmentator v1"] - meant["totalsegmentator v2"] == {
        *("heart_myocardium", "heart_atrium_left", "heart_atrium_right", "heart_ventricle_left"),
        *("heart_ventricle_right", "pulmonary_artery", "face"),
    }


def test_each_name_of_the_vocabulary_means_one_structure():
    names = [
        normalise_name(name)
        for row in vocabulary().values()
        for name in (row.name, *filter(None, row.aliases))
    ]
    assert sorted(names) == sorted(set(names))
    assert [
        name for name in vocabulary() if lookup(name) != name or normalise_name(name) != name
    ] == []


def test_what_is_a_part_has_a_known_whole():
    for name in vocabulary():
        assert [whole for whole in ancestors(name) if lookup(whole) != whole] == []
    assert ancestors("kidney_left") == ("kidney",)
    assert ancestors("lung_upper_lobe_left") == ("lung_left", "lung")
    assert ancestors("femur_head_left") == ("femur_left", "femur_head", "femur", "bone")
    assert ancestors("liver") == ancestors("heart_left") == ancestors("blob_left") == ()


def test_a_pair_has_a_left_and_a_right_one():
    assert split_pair("kidney") == ("kidney_left", "kidney_right")
    assert split_pair("liver") is split_pair("kidney_left") is split_pair("blob") is None


@given(
    st.sampled_from(PAIRS),
    st.sampled_from(["left", "right", "l", "r", "lt", "rt"]),
    st.sampled_from([" ", "_", "-", ".", " - ", "  "]),
    st.booleans(),
    st.sampled_from([str.lower, str.upper, str.title, str.capitalize]),
)
def test_spelling_does_not_matter(pair, side, gap, side_first, case):
    words = [side, *pair.split("_")] if side_first else [*pair.split("_"), side]
    assert lookup(case(gap.join(words))) == f"{pair}_{'left' if side[0] == 'l' else 'right'}"


@given(st.sampled_from(PAIRS), st.booleans(), st.sampled_from([str.lower, str.upper]))
def test_a_first_letter_may_be_the_side_of_a_pair(pair, left, case):
    assert lookup(case(f"{'l' if left else 'r'}{pair}")) == f"{pair}_{'left' if left else 'right'}"


@given(st.sampled_from(sorted(vocabulary())))
def test_a_name_that_means_a_structure_is_the_same_name_again(name):
    assert resolve_name(resolve_name(name.upper())) == resolve_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "kidney_left",
        "left kidney",
        "Left kidney",
        "Kidney (L)",
        "kidney-lt",
        "LEFT_KIDNEY",
        "leftKidney",
        "KidneyLeft",
    ],
)
def test_one_structure_has_one_canonical_name(name):
    assert normalise_name(name) == "kidney_left"


def test_names_in_any_script_stay_apart():
    assert normalise_name("肝臓") == "肝臓"
    assert normalise_name("Œsophage") == "œsophage"
    assert match_classes(["Печень"], ["Почка"]) == {}


@pytest.mark.parametrize("name", ["class_1", "1", "Label 3", "foreground", "ROI"])
def test_a_name_that_says_nothing_matches_by_request_alone(name):
    assert match_classes([name], [name]) == {}
    assert match_classes([name], [name], {name: name}) == {name: name}


def test_a_dataset_s_names_are_resolved_and_unknown_ones_keep_their_words():
    names = ["lkidney", "Left adrenal", "Blob A", "liver", "tumour"]
    assert resolve_names(names) == {
        "lkidney": "kidney_left",
        "Left adrenal": "adrenal_gland_left",
        "Blob A": "blob_a",
        "liver": "liver",
        "tumour": "tumour",
    }


def test_a_dataset_may_say_what_a_name_means():
    assert resolve_names(["cancer"], {"cancer": "Lung tumour"}) == {"cancer": "lung_tumor"}
    assert match_classes(["cancer"], ["lung tumor"], None, {"cancer": "lung_tumor"}) == {
        "cancer": "lung tumor"
    }


def test_other_words_are_shown_with_an_arrow():
    assert show_resolved(resolve_names(["lkidney", "liver"])) == {
        "lkidney": "lkidney -> kidney_left",
        "liver": "liver",
    }


@pytest.mark.parametrize("name", ["Left kidney", "kidney (l)", "lkidney"])
def test_a_structure_is_matched_with_the_class_of_the_same_meaning(name):
    assert match_classes([name, "tumour"], CLASSES) == {name: "kidney_left"}


@pytest.mark.parametrize("name", ["right kidney", "rkidney", "kidney", "iver"])
def test_a_structure_of_another_meaning_is_not_matched(name):
    assert match_classes([name], CLASSES) == {}


@pytest.mark.parametrize(
    "names", [["kidney_left"], ["Lung (R)", "liver"], ["lkidney"], ["lblob", "rblob"]]
)
def test_names_that_say_left_or_right_have_sides(names):
    assert has_sides(names)


def test_names_that_begin_with_l_or_r_by_nature_have_no_sides():
    assert not has_sides(["liver", "rectum", "leftover", "ribs"])


@pytest.mark.parametrize(
    "names",
    [
        ("Gall Bladder", "gall", "gallbladder"),
        ("Postcava", "IVC", "inferior vena cava"),
        ("ladrenal", "Left Adrenal Gland", "adrenal_gland_left", "left suprarenal gland", "LAG"),
        ("Portal Vein and Splenic Vein", "psv", "portal and splenic veins"),
        ("Celiac Truck", "celiac_trunk"),
        ("pancreatic tumor", "Pancreas Tumor", "pancreas tumour", "pancreas cancer"),
        ("urinary_bladder", "Bladder"),
        ("rlung", "Lung (R)", "Right Lung"),
        ("Intestine", "small bowel"),
        ("rib_left_3", "left rib 3"),
        ("vertebra L5", "vertebrae_L5"),
    ],
)
def test_public_names_of_one_structure_match_each_other(names):
    for name in names:
        for other in names:
            assert match_classes([name], [other]) == {name: other}, (name, other)


def test_an_alias_keeps_the_side():
    assert resolve_name("right adrenal") == "adrenal_gland_right"
    assert match_classes(["adrenal_left"], ["Right Adrenal Gland"]) == {}


def test_what_the_user_says_goes_before_the_names():
    given = {"tumour": "spleen", "liver": ""}
    assert match_classes(["liver", "tumour", "spleen"], CLASSES, given) == {
        "tumour": "spleen",
        "spleen": "spleen",
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [({"livr": "liver"}, "unknown structure 'livr'"), ({"liver": "splen"}, "spleen")],
)
def test_a_mapping_of_unknown_names_is_refused(given, words):
    with pytest.raises(FseftError, match=words):
        match_classes(["liver"], CLASSES, given)
