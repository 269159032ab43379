"""`fseft benchmark` on the command line."""

from __future__ import annotations

import json
import shlex

import pytest

from fseft.workspace import Workspace
from tests.sample_data import write_dataset, write_model


@pytest.fixture
def benchmark(fseft, tmp_path):
    """Run a small benchmark of three methods; further arguments are added."""
    write_dataset(tmp_path / "blobs")
    write_model(Workspace(tmp_path))
    quick = "--set epochs=1 --set crops_per_step=1 --device cpu -k 1 -o bench"
    command = f"benchmark blobs --model tiny --method adaptformer,linear-probe,full {quick}"
    return lambda *more: fseft(*shlex.split(command), *more)


def starting_with(lines, *words):
    return [line.split() for line in lines if line.split()[: len(words)] == list(words)]


def test_it_shows_the_test_cases_each_trial_and_both_tables(benchmark):
    ended = benchmark()
    assert ended.status == 0, ended.err
    assert "3 trials, scored on 2 cases: " in ended.err
    assert "tiny, full, k = 1, seed 0: Dice 0." in ended.err
    lines = ended.out.splitlines()
    assert max(map(len, lines[:6])) <= 80
    headings = starting_with(lines, "method", "k")
    assert [heading[2] for heading in headings] == ["Dice", "Dice"]
    assert len(starting_with(lines, "full", "1")) == 2
    assert sum("the best" in line for line in lines) == 2  # a heading, and the row
    assert "adaptformer: the method 'adaptformer' requires transformer blocks" in ended.out
    assert "bench/benchmark.md, benchmark.csv and benchmark.json" in ended.out


def test_the_former_name_of_the_baseline_is_read(benchmark):
    assert "Dice minus that of full" in benchmark("--against", "full").out


def test_json_is_the_written_document_and_nothing_else(benchmark, tmp_path):
    shown = benchmark("--json").out
    written = (tmp_path / "bench" / "benchmark.json").read_text()
    assert json.loads(shown) == json.loads(written)


def test_a_failed_trial_is_reported_after_the_tables_of_the_others(benchmark, tmp_path):
    benchmark()
    run = tmp_path / "bench" / "runs" / "blobs" / "tiny" / "full-k1-s0"
    (run / "run.json").write_text("{}")
    ended = benchmark()
    assert ended.status == 2
    assert "warning: tiny, full, k = 1, seed 0: " in ended.err
    message = "error: 1 of 3 trials failed. Fix the causes above, and run again"
    assert ended.lines[-1].startswith(message)
    assert starting_with(ended.out.splitlines(), "linear-probe", "1")
