"""An error says in one line where it happened, what is wrong and what to do."""

from __future__ import annotations

import pickle

import pytest

from fseft.errors import FseftError, did_you_mean


def test_all_parts_appear_in_one_line():
    error = FseftError("spacing is 0 mm", hint="Repair\nthe header.", case="p07", file="p07.nii.gz")
    assert str(error) == "case p07, p07.nii.gz: spacing is 0 mm. Repair the header."


def test_a_cause_alone_is_a_sentence():
    assert str(FseftError("the disk is full")) == "the disk is full."
    assert str(FseftError("the disk is full.", hint="Free some.")) == "the disk is full. Free some."


def test_an_error_survives_the_border_of_a_process():
    error = FseftError("a", hint="b", case="c", file="d")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.case, copy.file) == (str(error), "c", "d")


def test_what_is_known_of_the_place_stays():
    error = FseftError("bad", case="inner").located(case="outer", file="f")
    assert (error.case, error.file) == ("inner", "f")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("lorra", ["full", "lora"], "Did you mean lora?"),
        ("xyz", ["b", "a"], "Known: a, b."),
        ("xyz", [], "None is known."),
    ],
)
def test_an_unknown_name_meets_the_nearest_known_ones(name, known, hint):
    assert did_you_mean(name, known) == hint


def test_a_long_list_of_names_is_cut_short():
    known = [f"case_{number:03d}" for number in range(262)]
    assert did_you_mean("zzz", known).endswith("case_018, case_019 and 242 more.")
