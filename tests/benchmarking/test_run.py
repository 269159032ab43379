"""A benchmark gives all methods the same cases, tests on unseen cases, and repeats nothing."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from fseft import api
from fseft.benchmarking import run as benchmark_run
from fseft.benchmarking.results import Trial, aggregate_trials
from fseft.benchmarking.test_split import external
from fseft.builtin.methods.full import Full
from fseft.cli.parsing import parse_settings
from fseft.errors import FseftError
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.experiment.callbacks import Callbacks
from fseft.metrics.fields import MetricColumn
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.fingerprinting import fingerprint_dataset
from fseft.planning.plan import plan_for
from fseft.schemas import Plan
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, read_volume, write_labels, write_volume
from fseft.workspace import read_document
from tests.sample_data import write_dataset, write_model

pytestmark = pytest.mark.full

DICE = MetricColumn(key="dice", title="Dice", direction="higher")
QUICK = ("epochs=1", "crops_per_step=1", "early_stopping=false")


@pytest.fixture
def compare(blobs, workspace, tmp_path, caplog):
    """Return a function that runs a benchmark; its attribute `trials` lists the finished trials."""

    def run(
        methods=("linear-probe", "full"),
        ks=(1,),
        seeds=(0,),
        models=("tiny",),
        output="bench",
        **changed,
    ):
        run.trials = []
        caplog.clear()
        settings = parse_settings("--set", changed.pop("settings", QUICK))
        options = {"dataset": blobs, "device": "cpu", "workspace": workspace, **changed}
        return api.benchmark(
            models=models,
            methods=methods,
            output=tmp_path / output,
            ks=ks,
            seeds=seeds,
            settings=settings,
            callbacks=Trials(run.trials),
            **options,
        )

    return run


class Trials(Callbacks):
    """Record the trials."""

    def __init__(self, trials):
        self.trials = trials

    def on_trial_end(self, trial):
        self.trials.append(trial)


def test_all_methods_have_the_same_training_cases_and_none_is_a_test_case(compare):
    result = compare(ks=(1, 2), seeds=(0, 1))
    assert [(row.method, row.k) for row in result.rows] == [
        (method, k) for k in (1, 2) for method in ("linear-probe", "full")
    ]
    supports = {}
    for trial in result.trials:
        supports.setdefault((trial.k, trial.seed), set()).add(trial.support)
        assert not set(trial.support) & set(result.test)
        assert set(trial.scores) == set(result.test)
    assert all(len(same) == 1 for same in supports.values())
    assert all(row.std["dice"] is not None for row in result.rows)
    assert len(result.test) == 2  # half of four


def test_labels_of_test_cases_plan_nothing(compare, workspace, tmp_path, monkeypatch):
    planned = []

    def record(model, fingerprint, options=None, *, dataset=None, labels=None):
        planned.append(labels.cases)
        return plan_for(model, fingerprint, options, dataset=dataset, labels=labels)

    monkeypatch.setattr("fseft.planning.plan.plan_for", record)
    result = compare(methods=("full",), seeds=(0, 1))
    assert planned
    assert not frozenset(result.test) & frozenset.union(*planned)
    assert not workspace.plan("blobs", "tiny").exists()


def test_the_scores_are_those_of_predict_and_evaluate(compare, tmp_path, blobs):
    result = compare(methods=("full",))
    run = tmp_path / "bench" / "runs" / "blobs" / "tiny" / "full-k1-s0"
    scores = evaluate(match_files(run / "predictions", blobs / "labelsTr"))
    means = result.rows[0].mean
    assert means == {key: scores.mean[key] for key in ("dice", "nsd", "hd95_mm")}
    assert result.rows[0].adapter_bytes == (run / "adapter.safetensors").stat().st_size
    written = json.loads((run / "predictions" / "metrics.json").read_text())
    assert written["mean_dice"] == means["dice"]


def test_the_files_hold_the_result(compare, tmp_path):
    result = compare()
    folder = tmp_path / "bench"
    assert json.loads((folder / "benchmark.json").read_text()) == result.model_dump(mode="json")
    rows = list(csv.DictReader((folder / "benchmark.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(result.test) * len(result.structures)
    assert (
        f"| full | 1 | {result.rows[1].mean['dice']:.3f} |" in (folder / "benchmark.md").read_text()
    )


def test_finished_trials_are_kept_when_methods_are_added(compare, tmp_path):
    first = compare()
    files = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("runs/**/*") if path.is_file()
    }
    second = compare(methods=("linear-probe", "full", "zero-shot"))
    assert second.trials[:2] == first.trials
    assert all(
        path.stat().st_mtime_ns == time
        for path, time in files.items()
        if path.name != "predictions.json"
    )


def test_cases_are_preprocessed_by_the_plans_of_the_trials(compare, tmp_path, monkeypatch):
    plans, preprocess = [], benchmark_run.preprocess

    def recording(dataset, plan, *args, **options):
        plans.append(plan)
        return preprocess(dataset, plan, *args, **options)

    monkeypatch.setattr(benchmark_run, "preprocess", recording)
    compare(minutes=0.01, settings=(*QUICK, "full.crops_per_step=2"))
    runs = (tmp_path / "bench" / "runs").rglob("plan.json")
    used = [read_document(path, Plan) for path in runs]
    assert len(used) == 2
    assert all(plan in plans for plan in used)


def test_an_incompatible_method_has_a_row_with_the_reason(compare):
    result = compare(methods=("adaptformer", "full"))
    incompatible, other = result.rows
    assert "transformer blocks" in incompatible.incompatibility
    assert other.mean["dice"] is not None
    assert other.difference is None  # no other row has scores


def test_settings_may_be_of_one_method(compare, tmp_path):
    compare(settings=(*QUICK, "full.epochs=2"))
    runs = tmp_path / "bench" / "runs" / "blobs" / "tiny"
    epochs = {
        path.parent.name: json.loads(path.read_text())["epochs"] for path in runs.glob("*/run.json")
    }
    assert epochs == {"linear-probe-k1-s0": 1, "full-k1-s0": 2}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"settings": ("lora.rank=2",)}, "the method 'lora' is not compared"),
        ({"settings": ("rank=2",)}, "no setting 'rank'"),
        ({"methods": ("loar",)}, "'loar'"),
        ({"models": ("tyni",)}, "'tyni'"),
        ({"test": ("z",)}, "not a labelled case"),
        (
            {"test": ("4",)},
            "k is 1, but only 0 of 4 labelled cases remain to train on, as 4 are scored",
        ),
        ({"ks": (3,)}, "k is 3, but only 2 of 4 labelled cases remain"),
        ({"cases": ("a",), "test": ("a",)}, "k is 1, but only 0 of 1 labelled case remain"),
        ({"cases": ("z",)}, "not a labelled case"),
        ({"test": ("²",)}, "not a labelled case"),
        ({"models": ()}, "`models` is empty"),
        ({"methods": ()}, "`methods` is empty"),
        ({"baseline": "lora"}, "the baseline 'lora' is not among the methods"),
        ({"settings": ("full.rank=2",)}, "no setting 'rank'"),
        ({"labels": ("liver",)}, "no structure 'liver'"),
    ],
)
def test_a_request_that_cannot_run_is_refused_before_any_trial(compare, changed, words, tmp_path):
    with pytest.raises(FseftError, match=words):
        compare(**changed)
    assert compare.trials == []
    assert not list(tmp_path.glob("bench/benchmark.*"))
    assert not (tmp_path / "bench" / "runs").exists()


def test_named_cases_are_tested_and_the_others_are_the_pool(compare):
    result = compare(methods=("linear-probe",), ks=(2,), test=("a", "c"), cases=("b", "c", "d"))
    assert result.test == ("a", "c")
    assert set(result.trials[0].support) == {"b", "d"}


def test_separate_scans_may_be_tested(compare, tmp_path):
    other = write_dataset(tmp_path / "other", cases=("x", "y"), seed=20)
    result = compare(
        methods=("linear-probe",),
        ks=(4,),
        test_images=other / "imagesTr",
        test_labels=other / "labelsTr",
    )
    assert result.test == ("x", "y")


@pytest.mark.parametrize("described", [True, False])
def test_the_rules_of_the_dataset_apply_to_separate_test_labels(
    compare, tmp_path, workspace, blobs, described
):
    other = write_dataset(tmp_path / "other", cases=("x", "y"), seed=20)
    if not described:
        (other / "dataset.json").unlink()
    for path in (other / "labelsTr").iterdir():
        volume = read_labels(path)
        label = volume.array[0].copy()
        label[label == 7] = 9
        write_labels(path, label, volume.geometry)
    dataset = read_dataset(blobs, ignore_label=9, missing_label="unannotated")
    split = external(
        other / "imagesTr",
        other / "labelsTr",
        dataset=dataset,
        fingerprint=fingerprint_dataset(dataset, workspace),
        structures=("tumour",),
        cases=(),
        k=1,
    )
    assert split.references.annotation.ignore == 9
    assert split.references.missing_label == "unannotated"
    result = compare(
        dataset=dataset,
        methods=("zero-shot",),
        test_images=other / "imagesTr",
        test_labels=other / "labelsTr",
    )
    (row,) = result.rows
    assert row.mean["dice"] is not None
    assert {len(scores) for scores in result.trials[0].scores.values()} == {1}


def test_a_test_scan_in_the_dataset_is_not_a_training_case(compare, blobs, tmp_path):
    """Scans are compared by their voxels, not by their files."""
    other = write_dataset(tmp_path / "other", cases=("x", "y"))  # the scans of a and b
    image = read_volume(other / "imagesTr" / "x_0000.nii.gz")
    write_volume(other / "imagesTr" / "x_0000.nii.gz", image.array.astype(np.int32), image.geometry)
    apart = {"test_images": other / "imagesTr", "test_labels": other / "labelsTr"}
    assert compare(methods=("zero-shot",), ks=(2,), **apart).pool == ("c", "d")
    with pytest.raises(FseftError, match="k is 3, but only 2 of 4 labelled cases remain"):
        compare(methods=("zero-shot",), ks=(3,), **apart)


def test_a_duplicate_of_a_test_case_is_not_a_training_case(compare, tmp_path):
    data = write_dataset(tmp_path / "twins")
    for kind, name in (("imagesTr", "{}_0000.nii.gz"), ("labelsTr", "{}.nii.gz")):
        shutil.copy(data / kind / name.format("a"), data / kind / name.format("b"))
    result = compare(dataset=data, methods=("zero-shot",), test=("a",))
    assert result.pool == ("c", "d")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: declare(folder, liver=1), "the labels have no structure 'Left kidney'"),
        (lambda folder: (folder / "labelsTr" / "x.nii.gz").write_bytes(b"x"), "x.nii.gz"),
        (lambda folder: (folder / "imagesTr" / "x_0000.nii.gz").write_bytes(b"x"), "x_0000.nii.gz"),
        (
            lambda folder: shift(folder / "labelsTr" / "x.nii.gz"),
            "is not on the grid of its scan x_0000.nii.gz",
        ),
    ],
)
def test_separate_scans_that_cannot_be_scored_are_refused_before_any_training(
    compare, tmp_path, damage, words
):
    other = write_dataset(tmp_path / "other", cases=("x", "y"), seed=20)
    damage(other)
    with pytest.raises(FseftError, match=words):
        compare(test_images=other / "imagesTr", test_labels=other / "labelsTr")
    assert not (tmp_path / "bench" / "runs").exists()


def declare(folder, **labels):
    path = folder / "dataset.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "labels": {"background": 0, **labels}})
    )


def shift(path):
    label = read_labels(path)
    affine = label.geometry.affine.copy()
    affine[0, 3] += 10
    write_labels(path, label.array[0], Geometry(label.geometry.shape, affine))


@pytest.mark.parametrize(
    "change",
    [
        {"tolerance_mm": 9.0},
        {"labels": ("tumour",), "overwrite": True},
        {"test": ("a",), "overwrite": True},
    ],
)
def test_outdated_scores_are_computed_again(compare, change):
    first = compare(methods=("full",), test=("a", "b"))
    second = compare(methods=("full",), **{"test": ("a", "b"), **change})
    assert second.trials[0].key != first.trials[0].key
    assert second.trials[0] != first.trials[0]


def test_scores_depend_on_the_structures_of_the_test_labels(compare, tmp_path):
    other = write_dataset(tmp_path / "other", cases=("x", "y"), seed=20)
    apart = {
        "methods": ("full",),
        "test_images": other / "imagesTr",
        "test_labels": other / "labelsTr",
    }
    first = compare(**apart)
    declare(other, **{"Left kidney": 7, "tumour": 1})
    second = compare(**apart)
    assert second.rows[0].mean["dice"] != first.rows[0].mean["dice"]
    (other / "annotated.json").write_text('{"x": ["tumour"]}')
    assert compare(**apart).trials[0].key != second.trials[0].key


def test_overwrite_measures_again(compare, tmp_path):
    first = compare(methods=("linear-probe",))
    place = tmp_path / "bench" / "runs" / "blobs" / "tiny" / "linear-probe-k1-s0" / "trial.json"
    place.write_text(place.read_text().replace('"seconds": ', '"seconds": 9999'))
    assert compare(methods=("linear-probe",)).rows[0].seconds > 9000
    assert compare(methods=("linear-probe",), overwrite=True).rows[0].seconds < 9000
    place.write_text("{")
    assert compare(methods=("linear-probe",)).rows[0].mean["dice"] == first.rows[0].mean["dice"]


@pytest.mark.parametrize("taken", ["mine", "workspace", "blobs", "file"])
def test_a_folder_of_something_else_is_not_overwritten(compare, tmp_path, taken, workspace, blobs):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "benchmark.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FseftError, match="Choose another `output`"):
        compare(output=blobs if taken == "blobs" else taken)
    assert (tmp_path / "mine" / "benchmark.md").read_text() == "mine"


def test_the_test_cases_do_not_depend_on_k(compare, tmp_path):
    data = write_dataset(tmp_path / "many", cases=tuple("abcdefghij"))
    few = compare(dataset=data, methods=("zero-shot",)).test
    assert compare(dataset=data, methods=("zero-shot",), ks=(1, 5)).test == few
    assert len(few) == 5


def test_masks_of_structures_are_scored_as_one_label_map(compare, tmp_path):
    """The layout of TotalSegmentator has masks in a folder per case."""
    plain = write_dataset(tmp_path / "plain", labels={"kidney_left": 1, "liver": 7})
    for case in "abcd":
        image = read_volume(plain / "imagesTr" / f"{case}_0000.nii.gz")
        label = read_labels(plain / "labelsTr" / f"{case}.nii.gz")
        folder = tmp_path / "masks" / f"s{case}"
        (folder / "segmentations").mkdir(parents=True)
        write_volume(folder / "ct.nii.gz", image.array, image.geometry)
        for value, name in ((1, "kidney_left"), (7, "liver")):
            write_labels(
                folder / "segmentations" / f"{name}.nii.gz", label.array[0] == value, label.geometry
            )
    (tmp_path / "bench" / "labels").mkdir(parents=True)  # as left by a killed run
    result = compare(dataset=tmp_path / "masks", methods=("zero-shot",), test=("sa", "sb"))
    reference = compare(dataset=plain, methods=("zero-shot",), test=("a", "b"), output="other")
    assert result.structures == reference.structures == ("kidney_left", "liver")
    assert result.rows[0].mean["dice"] == reference.rows[0].mean["dice"]
    assert result.rows[0].mean["dice"] > 0


def test_trials_in_several_processes_have_the_same_scores(compare):
    alone = compare()
    together = compare(workers=2, output="other")
    assert [(row.method, row.mean["dice"]) for row in together.rows] == [
        (row.method, row.mean["dice"]) for row in alone.rows
    ]


def test_the_other_trials_are_kept_when_one_fails(compare, tmp_path):
    compare()
    (tmp_path / "bench" / "runs" / "blobs" / "tiny" / "full-k1-s0" / "run.json").write_text("{}")
    result = compare()
    assert list(result.failed) == ["tiny, full, k = 1, seed 0"]
    assert [row.method for row in result.rows] == ["linear-probe"]
    assert "full, k = 1, seed 0 failed: " in (tmp_path / "bench" / "benchmark.md").read_text()


def test_an_exception_in_a_trial_is_logged_with_its_traceback(compare, monkeypatch, caplog):
    def fail(*_arguments, **_named):
        raise KeyError("no.such.layer")

    monkeypatch.setattr(Full, "apply", fail)
    result = compare()
    assert [row.method for row in result.rows] == ["linear-probe"]
    assert result.failed == {"tiny, full, k = 1, seed 0": "KeyError: 'no.such.layer'"}
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert isinstance(record.exc_info[1], KeyError)


def test_the_tables_are_kept_when_every_trial_fails(compare, tmp_path):
    compare()
    tables = (tmp_path / "bench" / "benchmark.md").read_text()
    with pytest.raises(
        FseftError, match=r"contains a run with learning_rate unset \(requested 0\.5\)"
    ):
        compare(settings=(*QUICK, "learning_rate=0.5"))
    assert (tmp_path / "bench" / "benchmark.md").read_text() == tables


def test_incompatible_methods_only_are_refused(compare):
    with pytest.raises(FseftError, match="requires transformer blocks"):
        compare(methods=("adaptformer", "compacter"))


def test_each_model_has_a_row(compare, workspace, tmp_path):
    write_model(workspace, "other", seed=3)
    result = compare(methods=("linear-probe",), models=("tiny", "other"))
    assert [row.model for row in result.rows] == ["tiny", "other"]
    assert "| other linear-probe | 1 |" in (tmp_path / "bench" / "benchmark.md").read_text()


def trial(method, cases, seed=0, k=1):
    return Trial(
        model="m",
        method=method,
        k=k,
        seed=seed,
        mean={"dice": sum(cases.values()) / len(cases)},
        scores={case: {"liver": {"dice": dice}} for case, dice in cases.items()},
    )


FULL, LORA = {"a": 0.9, "b": 0.8, "c": 0.7}, {"a": 0.8, "b": 0.8, "c": 0.5}


@pytest.mark.parametrize(("baseline", "expected"), [("", (None, -0.1)), ("lora", (0.1, None))])
def test_a_row_is_compared_with_the_best_of_its_k_or_with_a_method(baseline, expected):
    trials = [
        trial(*of, seed, k)
        for k in (1, 5)
        for of in (("full", FULL), ("lora", LORA))
        for seed in (0, 1)
    ]
    rows = aggregate_trials(trials, (0, 1), DICE, baseline)
    assert [row.difference and row.difference.mean for row in rows[:2]] == [
        e and pytest.approx(e) for e in expected
    ]


def test_a_row_without_all_seeds_is_left_out():
    trials = [trial("full", FULL, 0), trial("full", FULL, 1), trial("lora", LORA, 0)]
    assert [row.method for row in aggregate_trials(trials, (0, 1), DICE)] == ["full"]


def test_rows_without_a_score_in_common_are_not_compared():
    empty = trial("lora", {"a": 0.0}).model_copy(
        update={"scores": {"a": {"liver": {"dice": None}}}}
    )
    assert aggregate_trials([trial("full", FULL), empty], (0,), DICE)[1].difference is None


def test_a_lower_distance_is_better():
    distance = MetricColumn(key="dice", title="HD95", direction="lower")
    trials = [trial("full", FULL), trial("lora", LORA)]
    rows = aggregate_trials(trials, (0,), distance)
    assert [row.difference is None for row in rows] == [False, True]


def test_a_trial_of_an_earlier_version_is_read():
    text = """{"schema_version": 1, "model": "m", "method": "lora", "k": 1, "seed": 0, "misfit": "",
        "dice": 0.9, "nsd": 0.8, "hd95_mm": 2.0, "cases": {"a": {"liver": 0.9}}}"""
    earlier = Trial.model_validate_json(text)
    assert earlier.mean == {"dice": 0.9, "nsd": 0.8, "hd95_mm": 2.0}
    assert earlier.scores == {"a": {"liver": {"dice": 0.9}}}
    written = json.loads(earlier.model_dump_json())
    assert json.loads(text).items() <= written.items()


def test_a_benchmark_keeps_the_keys_of_an_earlier_version(compare):
    written = compare(baseline="full").model_dump(mode="json")
    assert written["against"] == "full"
    assert {"dice", "dice_std", "nsd", "hd95_mm", "misfit", "difference"} <= written["rows"][
        0
    ].keys()
    assert {"dice", "nsd", "hd95_mm", "misfit", "cases"} <= written["trials"][0].keys()
