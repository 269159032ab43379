"""`fseft benchmark` as a person sees it."""

from __future__ import annotations

import json
import shlex

import pytest

from fseft.workspace import Workspace
from tests.sample_data import write_dataset, write_model


@pytest.fixture
def compared(fseft, tmp_path):
    """A small benchmark, and how it ended."""
    write_dataset(tmp_path / "blobs")
    write_model(Workspace(tmp_path))
    quick = "--set epochs=1 --set crops_per_step=1 --device cpu -k 1 -o bench"
    command = f"benchmark blobs --model tiny --method adaptformer,linear-probe,full {quick}"
    return lambda *more: fseft(*shlex.split(command), *more)


def test_it_tells_what_is_scored_each_trial_and_both_tables(compared):
    ended = compared()
    assert ended.status == 0, ended.err
    assert "3 trials, scored on 2 cases: " in ended.err
    assert "tiny, full, k = 1, seed 0: Dice 0." in ended.err
    lines = ended.out.splitlines()
    assert max(map(len, lines[:6])) <= 80
    heads = [line.split() for line in lines if line.split()[:2] == ["method", "k"]]
    assert [head[2] for head in heads] == ["Dice", "Dice"]
    assert sum(line.split()[:2] == ["full", "1"] for line in lines) == 2
    assert sum("the best" in line for line in lines) == 2  # a heading, and the row
    assert "adaptformer: the method 'adaptformer' needs transformer blocks" in ended.out
    assert "bench/benchmark.md, benchmark.csv and benchmark.json" in ended.out


def test_json_is_the_written_document_and_nothing_else(compared, tmp_path):
    assert json.loads(compared("--json").out) == json.loads(
        (tmp_path / "bench" / "benchmark.json").read_text()
    )


def test_a_trial_that_fails_is_told_beside_the_tables_of_the_others(compared, tmp_path):
    compared()
    (tmp_path / "bench" / "runs" / "blobs" / "tiny" / "full-k1-s0" / "run.json").write_text("{}")
    ended = compared()
    assert ended.status == 2
    assert "warning: tiny, full, k = 1, seed 0: " in ended.err
    assert ended.lines[-1].startswith(
        "error: 1 of 3 trials failed. Mend what is told above, and run again"
    )
    assert any(line.split()[:2] == ["linear-probe", "1"] for line in ended.out.splitlines())
