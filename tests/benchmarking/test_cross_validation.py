"""Cross-validation within the training cases of an adapter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fseft import api
from fseft.adaptation import method_trials
from fseft.benchmarking.cross_validation import expected_dice, make_folds, summarise
from fseft.errors import FseftError
from fseft.model_zoo.adapter_file import read_manifest, read_tensors
from fseft.schemas import Plan, Run
from fseft.workspace import read_document
from tests.sample_data import equal_tensors

DICE = st.lists(st.floats(0, 1), min_size=1, max_size=12)
NAMES = st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=15, unique=True)


@given(NAMES, st.data())
def test_every_case_is_in_one_fold(cases, data):
    folds = make_folds(cases, data.draw(st.none() | st.integers(2, len(cases))))
    assert sorted(case for fold in folds for case in fold) == sorted(cases)
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_up_to_ten_cases_are_left_out_one_at_a_time():
    assert len(make_folds([str(case) for case in range(10)])) == 10
    assert len(make_folds([str(case) for case in range(11)])) == 5


@pytest.mark.parametrize(("cases", "folds"), [(["a"], None), (["a", "b"], 3)])
def test_more_folds_than_cases_are_refused(cases, folds):
    with pytest.raises(FseftError, match="cannot be divided"):
        make_folds(cases, folds)


@given(DICE)
def test_the_interval_contains_the_mean_and_stays_within_0_and_1(values):
    expected = expected_dice(values)
    assert 0 <= expected.low <= expected.mean <= expected.high <= 1
    assert expected.cases == len(values)


def test_the_interval_is_that_of_students_t_distribution():
    expected = expected_dice([0.6, 0.7, 0.8])
    half = 4.3027 * 0.1 / 3**0.5  # 97.5 % quantile at 2 degrees of freedom
    assert (expected.mean, expected.low) == (0.7, pytest.approx(0.7 - half, abs=1e-4))


def test_cases_without_a_structure_do_not_count_for_it():
    dice = {"a": {"liver": 0.8, "spleen": 0.4}, "b": {"liver": 0.6}}
    result = summarise((("a",), ("b",)), dice, ["liver", "spleen", "pancreas"])
    assert {name: expected.cases for name, expected in result.expected.items()} == {
        "liver": 2,
        "spleen": 1,
    }
    assert result.mean.mean == 0.6


@pytest.fixture
def adapt(blobs, workspace):
    """Adapts for an epoch, and returns the adapter."""

    def run(k=2, method="linear-probe", **options):
        settings = {"epochs": 1, "feature_passes": 1, "device": "cpu", **options}
        output = workspace.root / "run"
        return api.adapt(blobs, "tiny", method, k, workspace=workspace, output=output, **settings)

    return run


def test_the_scores_are_stored_in_the_adapter_and_its_tensors_stay(adapt):
    tensors = read_tensors(adapt().path)
    adapter = adapt(cross_validate=True)
    result = read_manifest(adapter.path).cross_validation
    assert result == adapter.run.cross_validation
    assert sorted(result.dice) == sorted(adapter.manifest.support)
    assert set(result.expected) == set(adapter.labels)
    assert all(0 <= dice.low <= dice.mean <= dice.high <= 1 for dice in result.expected.values())
    assert equal_tensors(read_tensors(adapter.path), tensors)
    written = adapter.path.stat().st_mtime_ns
    assert adapt(cross_validate=True).path.stat().st_mtime_ns == written  # not repeated


def test_no_case_is_scored_by_an_adapter_that_was_trained_on_it(adapt):
    adapter = adapt(k=3, cross_validate=True, folds=2)
    folds = adapter.run.cross_validation.folds
    assert sorted(map(len, folds)) == [1, 2]
    for number, fold in enumerate(folds, start=1):
        run = adapter.path.parent / "cross-validation" / f"fold-{number}"
        assert set(read_manifest(run).support) == set(adapter.manifest.support) - set(fold)
        predicted = {file.name for file in (run / "predictions").glob("*.nii.gz")}
        assert predicted == {f"{case}.nii.gz" for case in fold}


@pytest.mark.full
def test_folds_have_as_many_seeds(adapt):
    adapter = adapt(cross_validate=True, seeds=2)
    for number in (1, 2):
        fold = read_document(adapter.path.parent / f"cross-validation/fold-{number}/run.json", Run)
        assert len(fold.soup.members) == 2


@pytest.mark.full
def test_each_fold_chooses_its_method_on_its_own_training_cases(adapt, monkeypatch):
    monkeypatch.setattr(method_trials, "MIN_STEPS", 0)
    adapter = adapt(k=3, method="auto", minutes=0.02, cross_validate=True, folds=2)
    plan = read_document(adapter.path.parent / "plan.json", Plan)
    for number, fold in enumerate(adapter.run.cross_validation.folds, start=1):
        folder = adapter.path.parent / f"cross-validation/fold-{number}"
        own = set(adapter.manifest.support) - set(fold)
        selection = read_document(folder / "run.json", Run).selection
        assert selection.key != adapter.run.selection.key
        assert set(selection.candidates[0].dice if selection.candidates else own) == own
        assert read_document(folder / "plan.json", Plan).options == plan.options


def test_too_few_cases_are_refused_before_the_training(adapt, workspace):
    with pytest.raises(FseftError, match="1 training case cannot be divided"):
        adapt(k=1, cross_validate=True)
    assert not (workspace.root / "run" / "adapter.safetensors").exists()
