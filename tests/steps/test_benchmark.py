"""`fseft benchmark`: the same cases for all, nothing scored that was learned from, and nothing done twice."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext

import pytest

from fseft.errors import FseftError
from fseft.steps.benchmark import BenchmarkRequest, Watcher, benchmark
from fseft.steps.comparison import Trial, summarise
from fseft.steps.evaluate import evaluate
from fseft.steps.jobs import AdaptRequest
from fseft.steps.pairing import pair_files

from .conftest import write_dataset, write_model

QUICK = ("epochs=1", "crops=1", "plateau=false")


@pytest.fixture
def compare(blobs, workspace, tmp_path):
    """Run a benchmark; gives what was found, and the trials that were told."""

    def run(methods=("linear-probe", "full"), ks=(1,), seeds=(0,), models=("tiny",), output="bench", **changed):
        own = {name: changed.pop(name) for name in ("test", "test_images", "test_labels") if name in changed}
        common = {"folder": blobs, "settings": QUICK, "device": "cpu", **changed}
        request = BenchmarkRequest(
            AdaptRequest(model="", method="", k=0, **common), tmp_path / output, models, methods, ks, seeds, **own
        )
        run.warnings, run.done = [], []
        watcher = Watcher(
            begin=lambda _held_out, _count: None,
            done=lambda name, trial: run.done.append((name, trial)),
            warn=run.warnings.append,
            progress=lambda _total, _what: nullcontext(lambda _name: None),
        )
        return benchmark(request, workspace, watcher)

    return run


def test_every_method_learns_from_the_same_cases_and_none_of_them_is_scored(compare):
    found = compare(ks=(1, 2), seeds=(0, 1))
    assert [(row.method, row.k) for row in found.rows] == [
        (method, k) for k in (1, 2) for method in ("linear-probe", "full")
    ]
    supports = {}
    for trial in found.trials:
        supports.setdefault((trial.k, trial.seed), set()).add(trial.support)
        assert not set(trial.support) & set(found.test)
        assert set(trial.cases) == set(found.test)
    assert all(len(same) == 1 for same in supports.values())
    assert all(row.seeds == (0, 1) and row.dice_std is not None for row in found.rows)
    assert len(found.test) == 2  # of four, as two are to be learned from


def test_the_scores_are_those_of_predict_and_evaluate(compare, tmp_path, blobs):
    found = compare(methods=("full",))
    run = tmp_path / "bench" / "runs" / "blobs" / "tiny" / "full-k1-s0"
    scores = evaluate(pair_files(run / "predictions", blobs / "labelsTr"))
    assert (found.rows[0].dice, found.rows[0].nsd) == (scores.mean_dice, scores.mean_nsd)
    assert found.rows[0].adapter_bytes == (run / "adapter.safetensors").stat().st_size
    assert json.loads((run / "predictions" / "metrics.json").read_text())["mean_dice"] == scores.mean_dice


def test_the_files_hold_what_was_found(compare, tmp_path):
    found = compare()
    folder = tmp_path / "bench"
    assert json.loads((folder / "benchmark.json").read_text()) == found.model_dump(mode="json")
    rows = list(csv.DictReader((folder / "benchmark.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(found.test)
    assert f"| full | 1 | {found.rows[1].dice:.3f} |" in (folder / "benchmark.md").read_text()


def test_what_is_done_is_not_done_again_and_methods_can_be_added(compare, tmp_path):
    before = compare()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("runs/**/*") if path.is_file()}
    after = compare(methods=("linear-probe", "full", "zero-shot"))
    assert after.trials[:2] == before.trials
    assert all(path.stat().st_mtime_ns == time for path, time in files.items() if path.name != "predictions.json")


def test_a_method_that_does_not_fit_is_told_and_ends_nothing(compare):
    found = compare(methods=("adaptformer", "full"))
    misfit, other = found.rows
    assert "transformer blocks" in misfit.misfit
    assert other.dice is not None
    assert other.to_best is None  # there is nothing to compare it with


def test_settings_may_be_of_one_method(compare, tmp_path):
    compare(settings=(*QUICK, "full.epochs=2"))
    runs = tmp_path / "bench" / "runs" / "blobs" / "tiny"
    epochs = {path.parent.name: json.loads(path.read_text())["epochs"] for path in runs.glob("*/run.json")}
    assert epochs == {"linear-probe-k1-s0": 1, "full-k1-s0": 2}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"settings": ("lora.rank=2",)}, "no method 'lora' takes part"),
        ({"settings": ("rank=2",)}, "no setting 'rank'"),
        ({"methods": ("loar",)}, "'loar'"),
        ({"models": ("tyni",)}, "'tyni'"),
        ({"test": ("z",)}, "no labelled case"),
        ({"test": ("4",)}, "too few to learn from 1 and score 4"),
        ({"ks": (4,)}, "too few to learn from 4 and score 1"),
        ({"ks": (3,), "test": ("a", "b")}, "k is 3"),
        ({"labels": ("liver",)}, "no structure 'liver'"),
    ],
)
def test_what_no_trial_can_do_is_refused_before_any(compare, changed, words, tmp_path):
    with pytest.raises(FseftError, match=words):
        compare(**changed)
    assert compare.done == []
    assert not (tmp_path / "bench" / "runs").exists()


def test_named_cases_are_scored_and_the_others_learned_from(compare):
    found = compare(methods=("linear-probe",), ks=(2,), test=("a", "c"), cases=("b", "c", "d"))
    assert found.test == ("a", "c")
    assert set(found.trials[0].support) == {"b", "d"}


def test_scans_apart_from_the_dataset_may_be_scored(compare, tmp_path):
    other = write_dataset(tmp_path / "other", cases=("x", "y"), seed=20)
    found = compare(methods=("linear-probe",), ks=(4,), test_images=other / "imagesTr", test_labels=other / "labelsTr")
    assert found.test == ("x", "y")


def test_a_scan_that_was_learned_from_is_not_scored_elsewhere(compare, blobs):
    with pytest.raises(FseftError, match="learned from and scored"):
        compare(methods=("linear-probe",), test_images=blobs / "imagesTr", test_labels=blobs / "labelsTr")


def test_masks_of_structures_are_scored_as_one_label_map(compare, tmp_path):
    """TotalSegmentator's layout has neither label maps nor scans with names of their own."""
    from fseft.volume.image import read_labels, read_volume, write_labels, write_volume

    plain = write_dataset(tmp_path / "plain")
    for case in "abcd":
        image = read_volume(plain / "imagesTr" / f"{case}_0000.nii.gz")
        label = read_labels(plain / "labelsTr" / f"{case}.nii.gz")
        folder = tmp_path / "masks" / f"s{case}"
        (folder / "segmentations").mkdir(parents=True)
        write_volume(folder / "ct.nii.gz", image.array, image.geometry)
        for value, name in ((1, "kidney_left"), (7, "liver")):
            write_labels(folder / "segmentations" / f"{name}.nii.gz", label.array[0] == value, label.geometry)
    found = compare(folder=tmp_path / "masks", methods=("linear-probe",))
    reference = compare(folder=plain, methods=("linear-probe",), output="other")
    assert [name.removeprefix("s") for name in found.test] == list(reference.test)
    assert found.structures == ("kidney_left", "liver")


def test_trials_run_in_processes_as_they_do_in_one(compare):
    alone = compare()
    together = compare(workers=2, output="other")
    assert [(row.method, row.dice) for row in together.rows] == [(row.method, row.dice) for row in alone.rows]


def test_one_trial_that_fails_does_not_lose_the_others(compare, tmp_path):
    compare()
    (tmp_path / "bench" / "runs" / "blobs" / "tiny" / "full-k1-s0" / "run.json").write_text("{}")
    with pytest.raises(FseftError, match="1 of 2 trials failed; the first: is not a valid run"):
        compare()
    assert [name for name, _ in compare.done] == ["tiny, linear-probe, k = 1, seed 0"]
    assert len(json.loads((tmp_path / "bench" / "benchmark.json").read_text())["trials"]) == 1


def test_models_stand_beside_each_other(compare, workspace, tmp_path):
    write_model(workspace, "other", seed=3)
    found = compare(methods=("linear-probe",), models=("tiny", "other"))
    assert [row.model for row in found.rows] == ["tiny", "other"]
    assert "| other linear-probe | 1 |" in (tmp_path / "bench" / "benchmark.md").read_text()


def test_a_row_is_compared_with_the_best_of_its_k_case_by_case():
    cases = {"full": {"a": 0.9, "b": 0.8, "c": 0.7}, "lora": {"a": 0.8, "b": 0.8, "c": 0.5}}
    trials = [
        Trial(model="m", method=method, k=k, seed=seed, dice=sum(dice.values()) / 3 - 0.1 * seed, cases=dice)
        for k in (1, 5)
        for method, dice in cases.items()
        for seed in (0, 1)
    ]
    full, lora = summarise(trials)[:2]
    assert full.dice == pytest.approx(0.75)
    assert full.dice_std == pytest.approx(0.1 / 2**0.5)
    assert full.to_best is None
    assert lora.to_best.mean == pytest.approx(-0.1)
    assert lora.to_best.low < -0.1 < lora.to_best.high
