"""The options that repeat a run: all that its documents hold, and nothing that they do not."""

from __future__ import annotations

import pytest

from fseft.adaptation.differences import SUPPORT
from fseft.adaptation.repetition import _plan_options, check_repeatable, options_of_run
from fseft.adaptation.selection import select_support
from fseft.cli.parsing import parse_memory
from fseft.errors import FseftError
from fseft.schemas import Origin, PlanOptions, Run, Soup, Strength, TrainingSet
from fseft.workspace import file_digest, write_document

BASE = {
    "dataset": "livers",
    "model": "tiny",
    "method": "lora",
    "config": {"rank": 2},
    "recipe": {"epochs": 3, "minutes": 4.0},
    "labels": {"liver": 1},
    "decoder": "fine-tuned",
    "k": 2,
    "seed": 0,
    "trained_parameters": 1,
}


@pytest.fixture
def repeated(tmp_path):
    def options(**fields):
        write_document(tmp_path / "run.json", Run(**{**BASE, **fields}))
        return options_of_run(tmp_path / "run.json")

    return options


def test_rows_of_the_head_and_settings_are_repeated(repeated):
    options = repeated(head_rows={"liver": "Liver"}, sources={SUPPORT: "b, a"})
    assert options["map"] == ["liver=Liver"]
    assert options["set"] == ["rank=2", "epochs=3"]
    assert (options["cases"], options["seeds"], options["minutes"]) == (["b", "a"], 1, 4.0)


def test_cases_are_drawn_again_in_their_order(repeated, tmp_path):
    pool = tuple("abcdefghij")
    cases = select_support(pool, 4, seed=0)
    support = TrainingSet(dataset="livers", k=4, seed=0, cases=cases, pool=pool)
    write_document(tmp_path / "support.json", support)
    options = repeated(k=4)
    assert select_support(pool, options["k"], options["seed"], options["cases"]) == cases


def test_a_run_without_sources_is_repeated_on_all_cases(repeated):
    assert "cases" not in repeated()


def test_the_minutes_are_those_of_all_seeds(repeated):
    soup = Soup(chosen="average", dice={}, members=("1", "2", "3"))
    assert repeated(soup=soup, recipe={"minutes": 12, "seeds": 3})["minutes"] == 12
    former = repeated(soup=soup)  # recorded the minutes of one training
    assert (former["minutes"], former["seeds"]) == (12, 3)


def test_options_of_the_plan_are_repeated():
    planned = PlanOptions(
        spacing_mm=(2, 2, 4), patch_size=(64, 64, 32), memory_bytes=12_000_000, channels="first"
    )
    options = _plan_options(planned)
    assert (options["spacing"], options["patch"]) == ("2,2,4", "64,64,32")
    assert options["channels"] == "first"
    assert parse_memory(options["memory"]) == 12_000_000


def test_a_changed_origin_is_refused(repeated, tmp_path):
    file = tmp_path / "first.safetensors"
    file.write_bytes(b"1")
    origin = Origin(sha256=file_digest(file), dataset="livers", cases=("a",), path=str(file))
    assert repeated(origin=origin)["from"] == str(file)
    check_repeatable(tmp_path / "run.json")
    file.write_bytes(b"2")
    with pytest.raises(FseftError, match=r"first\.safetensors: .* has changed"):
        check_repeatable(tmp_path / "run.json")


def test_a_reduced_strength_is_named(repeated, tmp_path, caplog):
    repeated(strength=Strength(value=0.5, dice={}))
    check_repeatable(tmp_path / "run.json")
    assert "kept 50% of the trained changes" in caplog.text
