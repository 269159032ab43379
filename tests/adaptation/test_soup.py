"""Several trainings with different seeds, in one adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fseft import api
from fseft.adaptation import soup
from fseft.adaptation.configure import configure
from fseft.adaptation.soup import mean_tensors
from fseft.errors import FseftError
from fseft.model_zoo.adapter_file import read_manifest, read_tensors
from fseft.planning.training_step import FLOPS_PER_SECOND, steps_in_time
from tests.sample_data import adapt_request, equal_tensors

VALUES = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=4)


@given(VALUES)
def test_the_average_is_between_the_members(values):
    average = mean_tensors([{"w": torch.tensor([value])} for value in values])["w"].item()
    assert min(values) - 1e-4 <= average <= max(values) + 1e-4


def test_members_with_other_tensors_have_no_average():
    assert mean_tensors([{"a": torch.ones(1)}, {"b": torch.ones(1)}]) is None
    assert mean_tensors([{"a": torch.ones(1)}, {"a": torch.ones(2)}]) is None


@pytest.fixture
def adapt(blobs, workspace):
    """Adapts with two seeds."""

    def run(**options):
        settings = {"epochs": 1, "crops_per_step": 1, "seeds": 2, **options}
        output = workspace.root / "run"
        return api.adapt(
            blobs, "tiny", "bias", 1, workspace=workspace, device="cpu", output=output, **settings
        )

    return run


def files_of_members(workspace):
    """Path -> time of change of the adapters of single trainings."""
    files = (workspace.root / "run" / "seeds").glob("*/adapter.safetensors")
    return {file: file.stat().st_mtime_ns for file in files}


@pytest.mark.parametrize("best", ["0", "1", "average"])
def test_the_adapter_is_the_one_that_scores_best(adapt, monkeypatch, best):
    scores = iter([{"tumour": 0.5 + 0.1 * (name == best)} for name in ("0", "1", "average")])
    monkeypatch.setattr(soup, "training_dice", lambda *_: next(scores))
    adapter = adapt()
    members = [
        read_tensors(adapter.path.parent / "seeds" / number / "adapter.safetensors")
        for number in "01"
    ]
    candidates = {"0": members[0], "1": members[1], "average": mean_tensors(members)}
    assert adapter.run.soup.chosen == best
    assert adapter.run.training_dice == {"tumour": 0.6}
    assert equal_tensors(read_tensors(adapter.path), candidates[best])
    assert not equal_tensors(members[0], members[1])


def test_of_equal_scores_the_average_is_written(adapt, monkeypatch):
    monkeypatch.setattr(soup, "training_dice", lambda *_: {"tumour": 0.5})
    assert adapt().run.soup.chosen == "average"


def test_run_and_manifest_describe_the_whole_not_the_first_training(adapt):
    adapter = adapt(seed=3, minutes=0.02)
    run, manifest = adapter.run, read_manifest(adapter.path)
    first = read_manifest(adapter.path.parent / "seeds" / "0")
    assert (run.seed, run.recipe["minutes"], run.recipe["seeds"]) == (3, 0.02, 2)
    assert (manifest.seed, manifest.soup, manifest.init_seed) == (3, run.soup, first.init_seed)
    assert run.outcome == "finished"
    assert (
        "seeds" not in json.loads((adapter.path.parent / "seeds/0/run.json").read_text())["recipe"]
    )


def test_a_finished_run_is_not_repeated(adapt, workspace):
    path = adapt().path
    written, members = path.stat().st_mtime_ns, files_of_members(workspace)
    assert adapt().path.stat().st_mtime_ns == written
    assert files_of_members(workspace) == members


def test_a_finished_run_of_an_earlier_version_is_not_repeated(adapt):
    adapter = adapt(minutes=10)
    written, path = adapter.path.stat().st_mtime_ns, adapter.path.with_name("run.json")
    run = json.loads(path.read_text(encoding="utf-8"))
    del run["recipe"]["seeds"]
    run["recipe"]["minutes"] = 5.0  # of each training
    path.write_text(json.dumps(run), encoding="utf-8")
    assert adapt(minutes=10).path.stat().st_mtime_ns == written
    with pytest.raises(FseftError, match=r"seeds 2 \(requested 3\)"):
        adapt(minutes=10, seeds=3)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"seeds": 1}, {"seeds": 2}, r"seeds 1 \(requested 2\)"),
        ({"seeds": 2}, {"seeds": 1}, r"seeds 2 \(requested 1\)"),
        ({"seeds": 2}, {"seeds": 3}, r"seeds 2 \(requested 3\)"),
        ({}, {"learning_rate": 0.5}, r"learning_rate unset \(requested 0.5\)"),
    ],
)
def test_another_run_in_the_folder_is_refused_before_any_training(
    adapt, workspace, first, second, message
):
    adapter = adapt(**first)
    before = adapter.path.stat().st_mtime_ns, files_of_members(workspace)
    with pytest.raises(FseftError, match=message):
        adapt(**second)
    assert (adapter.path.stat().st_mtime_ns, files_of_members(workspace)) == before


def test_a_finished_run_continues_with_more_epochs(adapt):
    assert adapt().run.epochs == 1
    continued = adapt(epochs=3)
    assert continued.run.epochs == 3
    assert [log_epochs(continued.path.parent / "seeds" / number) for number in "01"] == [
        [1, 2, 3]
    ] * 2


def log_epochs(folder):
    """The numbers of the epochs in the log of a training, each trained once."""
    return [json.loads(line)["epoch"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_default_time_budget_is_shared(workspace, blobs, monkeypatch):
    monkeypatch.setitem(FLOPS_PER_SECOND, "cpu", 1e9)
    request = adapt_request(blobs, "tiny", "lora", workspace, k=2)
    config = configure(replace(request, seeds=4), workspace)
    steps = steps_in_time(config.plan, config.crops_per_step)
    assert (
        config.training.epochs
        == ceil(steps / (2 * 4))
        < configure(request, workspace).training.epochs
    )


def test_a_default_time_budget_allows_at_least_one_epoch(workspace, blobs, monkeypatch):
    monkeypatch.setitem(FLOPS_PER_SECOND, "cpu", 1.0)
    config = configure(adapt_request(blobs, "tiny", "lora", workspace, k=2), workspace)
    assert config.training.epochs == 1


def test_trainings_that_share_no_time_are_announced(request_for, workspace, caplog):
    caplog.set_level("INFO")
    configure(replace(request_for("lora"), seeds=2), workspace)  # two epochs each
    assert "2 trainings, each as long as one" in caplog.text
    caplog.clear()
    configure(replace(request_for("lora"), seeds=2, minutes=1), workspace)
    assert "as long as one" not in caplog.text
