"""Codes and colours of structures."""

from __future__ import annotations

import re

import pytest

from fseft.anatomy.terminology import structure_colours, term_of
from fseft.anatomy.vocabulary import vocabulary


@pytest.mark.parametrize("structure", vocabulary().values(), ids=lambda row: row.name)
def test_a_row_has_a_valid_code_and_colour(structure):
    assert re.fullmatch(r"([1-9]\d{5,17} [A-Z][\w ]+(@\w+)?)?", structure.snomed)
    assert re.fullmatch(r"[0-9a-f]{6}", structure.colour)
    _, _, organ = structure.snomed.partition("@")
    assert not organ or vocabulary()[organ].snomed


def test_a_code_names_one_structure():
    codes = [
        row.snomed.split()[0]
        for row in vocabulary().values()
        if "@" not in row.snomed and row.snomed
    ]
    assert len(codes) == len(set(codes))


def test_the_codes_are_those_of_the_dictionary_of_dicom():
    codes = pytest.importorskip("pydicom.sr.codedict").codes.SCT
    entries = [getattr(codes, name) for name in codes.dir()]
    dictionary = {code.value: code.meaning for code in entries}
    compared = 0
    for row in vocabulary().values():
        value, _, meaning = row.snomed.partition("@")[0].partition(" ")
        if value in dictionary and meaning not in OTHER_WORDS:
            compared += 1
            assert stems(meaning) <= stems(dictionary[value]), row.name
    assert compared > 80


OTHER_WORDS = {
    "Neoplasm": "Tumor",
    "Blood vessel": "Endo-vascular",
    "Celiac artery": "Truncus coeliacus",
}


def stems(meaning):
    """First letters of the words, as `Splenic structure` stands for the spleen."""
    words = re.findall(r"\w+", meaning.lower())
    return {word[:4] for word in words} - {"of", "vein", "glan", "hear"}


def test_a_tumour_is_a_finding_in_its_organ():
    term = term_of("kidney_tumor_left")
    assert (term.category.value, term.kind.meaning) == ("49755003", "Neoplasm")
    assert (term.region.meaning, term.region_side.meaning, term.side) == ("Kidney", "Left", None)


@pytest.mark.parametrize("name", ["my organ", "肝臓", "a" * 90, "x_y_z_" * 9])
def test_an_unknown_structure_has_a_private_code_of_valid_length(name):
    kind = term_of(name).kind
    assert kind.is_private
    assert 0 < len(kind.value) <= 16
    assert 0 < len(kind.meaning) <= 64
    assert kind.value.isascii()


def test_left_and_right_have_different_colours():
    colours = structure_colours(["kidney_left", "kidney_right", "one", "two"])
    assert len(set(colours.values())) == 4
    assert sum(colours["kidney_right"]) > sum(colours["kidney_left"])
