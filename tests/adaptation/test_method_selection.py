"""The method `auto`: chosen on the training cases, within the time budget, without harm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fseft import api
from fseft.adaptation import method_selection, method_trials
from fseft.adaptation.configure import configure
from fseft.adaptation.method_selection import candidate_methods, choose, select_method
from fseft.adaptation.method_trials import Trials
from fseft.adaptation.strength import interpolate
from fseft.errors import FseftError
from fseft.model_zoo.adapter_file import read_manifest
from fseft.schemas import Candidate
from fseft.workspace import write_document

TRIED = ["lora", "full", "linear-probe", "spatial-adapter"]
DICE = st.lists(st.floats(0, 1), min_size=2, max_size=6)


def candidate(method, *dice):
    return Candidate(method=method, dice={str(case): value for case, value in enumerate(dice)})


def test_a_method_that_is_better_on_all_cases_is_chosen():
    assert choose([candidate("lora", 0.5, 0.6), candidate("full", 0.6, 0.69)])[0] == "full"


def test_the_default_stays_where_the_difference_is_within_its_error():
    assert choose([candidate("lora", 0.5, 0.6), candidate("full", 0.9, 0.3)])[0] == "lora"


@given(DICE, DICE)
def test_the_default_is_chosen_unless_another_method_has_a_higher_mean(first, second):
    default, other = candidate("lora", *first), candidate("full", *second)
    if choose([default, other])[0] == "full":
        assert other.mean > default.mean


def test_a_method_without_scores_on_all_cases_is_not_chosen():
    assert choose([candidate("lora", 0.1, 0.1), candidate("full", 0.9)])[0] == "lora"


def test_of_a_single_case_the_default_is_chosen():
    assert choose([candidate("lora", 0.1), candidate("full", 0.9)])[0] == "lora"


def test_methods_without_scores_are_left_out():
    assert choose([candidate("lora"), candidate("full", 0.5, 0.6)])[0] == "full"
    assert choose([candidate("lora"), candidate("full")])[0] == "lora"


def test_a_setting_of_one_method_is_refused():
    with pytest.raises(FseftError, match="no setting 'rank'"):
        candidate_methods({"rank": 4}, api.get_model("phantom-tiny"))


@pytest.mark.parametrize(("parameters", "default"), [(2_800_000, "full"), (62_000_000, "lora")])
def test_small_networks_are_trained_as_a_whole_before_structures_are_known(parameters, default):
    model = api.get_model("phantom-tiny")
    card = model.card.model_copy(update={"parameters": parameters})
    assert candidate_methods({}, replace(model, card=card))[0].name == default


def test_random_weights_are_trained_from_scratch():
    assert [method.name for method in candidate_methods({}, api.get_model("none"))] == ["scratch"]


@given(st.floats(0, 1))
def test_the_strength_moves_weights_from_before_to_after_the_training(strength):
    initial, trained = {"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}
    assert interpolate(initial, trained, strength)["w"].item() == pytest.approx(1 + 2 * strength)


@pytest.fixture
def adapt(blobs, workspace):
    """Adapts with the method `auto`."""

    def run(**options):
        settings = {"k": 2, "epochs": 1, "crops_per_step": 1, "feature_passes": 1, **options}
        return api.adapt(
            blobs,
            settings.pop("model", "tiny"),
            workspace=workspace,
            device="cpu",
            output=workspace.root / "run",
            **settings,
        )

    return run


def test_the_default_method_is_taken_where_the_time_allows_too_few_steps(adapt):
    adapter = adapt()
    assert adapter.run.method == "lora"
    assert "says little" in adapter.run.selection.reason
    assert read_manifest(adapter.path).selection == adapter.run.selection


@pytest.mark.parametrize(
    ("structures", "default"),
    [(["Left kidney"], "lora"), (["tumour"], "full"), (["Left kidney", "tumour"], "full")],
)
def test_small_networks_are_trained_as_a_whole_unless_most_structures_are_known(
    structures, default, adapt, workspace
):
    model = api.get_model("tiny", workspace=workspace)
    small = replace(model, card=model.card.model_copy(update={"parameters": 2_800_000}))
    assert adapt(model=small, labels=structures).run.method == default


@pytest.fixture
def trained(monkeypatch):
    """Trials have any number of steps; lists the training cases of each."""
    monkeypatch.setattr(method_trials, "MIN_STEPS", 0)
    trained, train = [], method_trials.train_adapter

    def recording(fold, *args, **options):
        trained.append(fold.support.cases)
        return train(fold, *args, **options)

    monkeypatch.setattr(method_trials, "train_adapter", recording)
    return trained


def test_methods_are_tried_on_cases_that_they_are_not_trained_on(adapt, trained, monkeypatch):
    scored, score = [], method_trials.training_dice

    def recording(fold, adapted, cached):
        scored.append((set(fold.support.cases), {case.case for case in cached}))
        return score(fold, adapted, cached)

    monkeypatch.setattr(method_trials, "training_dice", recording)
    selection = adapt().run.selection
    assert scored
    assert all(training.isdisjoint(held_out) for training, held_out in scored)
    assert {frozenset(cases) for cases in trained} == {frozenset("c"), frozenset("d")}
    assert [candidate.method for candidate in selection.candidates] == TRIED
    assert set(selection.candidates[0].dice) == {"c", "d"}


def test_an_interrupted_choice_resumes_with_the_next_trial(adapt, trained, monkeypatch):
    score = method_trials.training_dice

    def interrupted(*args):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return score(*args)

    monkeypatch.setattr(method_trials, "training_dice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        adapt()
    monkeypatch.setattr(method_trials, "training_dice", score)
    trained.clear()
    candidates = adapt().run.selection.candidates
    scored_halves = sum(len(candidate.dice) for candidate in candidates)
    assert len(trained) == scored_halves - 1  # the first trial is not repeated


def test_a_longer_run_keeps_the_choice(adapt, trained):
    first = adapt().run.selection
    trained.clear()
    longer = adapt(epochs=2).run
    assert (longer.selection, longer.epochs, trained) == (first, 2, [])


def test_a_run_of_an_earlier_version_keeps_its_choice(adapt, trained, monkeypatch):
    with monkeypatch.context() as choice:
        choice.setattr(method_selection, "choose", lambda _: ("full", "best"))
        first = adapt()
    trained.clear()
    folder, written = first.path.parent, first.path.stat().st_mtime_ns
    (folder / "method-selection.json").unlink()
    former = first.run.selection.model_copy(update={"key": "of another version"})
    write_document(folder / "run.json", first.run.model_copy(update={"selection": former}))
    assert adapt().path.stat().st_mtime_ns == written
    longer = adapt(epochs=2).run
    assert (longer.method, longer.selection, longer.epochs) == ("full", former, 2)
    assert trained == []
    with pytest.raises(FseftError, match="training cases d, c"):
        adapt(cases=["a", "b"])


def test_a_method_that_fails_is_left_out(adapt, trained, monkeypatch, caplog):
    train = method_trials.train_adapter

    def failing(fold, *args, **options):
        if fold.request.method.name == "lora":
            raise FseftError("the loss is not finite", hint="Wait.")
        return train(fold, *args, **options)

    monkeypatch.setattr(method_trials, "train_adapter", failing)
    run = adapt().run
    failed = run.selection.candidates[0]
    assert (failed.method, failed.dice, failed.failure) == (
        "lora",
        {},
        "the loss is not finite. Wait.",
    )
    assert run.method != "lora"
    assert "the method lora is left out: the loss is not finite" in caplog.text


def test_the_scoring_is_bounded_and_all_methods_are_scored_on_the_same_cases(
    adapt, trained, monkeypatch
):
    monkeypatch.setattr(method_trials, "SCORING_TIME", 0)
    candidates = adapt(k=4).run.selection.candidates
    assert len(candidates[0].dice) == 2  # one case of each half
    assert all(set(other.dice) <= set(candidates[0].dice) for other in candidates[1:])


def test_at_least_half_of_the_minutes_are_left_for_the_training(
    request_for, workspace, monkeypatch
):
    slow = Candidate(method="lora", dice={"a": 0.5}, seconds=1e4)
    monkeypatch.setattr(method_trials, "MIN_STEPS", 0)
    monkeypatch.setattr(Trials, "run", lambda *_: (slow,))
    request = request_for("lora", minutes=2, output=workspace.root / "run")
    methods = tuple(candidate_methods({}, request.model))
    config = configure(replace(request, candidates=methods), workspace)
    assert select_method(config, workspace).request.minutes == 1


def test_another_run_in_the_folder_is_refused_before_the_trials(adapt, trained):
    adapt(method="bias")
    with pytest.raises(FseftError, match="already contains another run"):
        adapt()
    assert trained == []


def test_modes_of_parts_are_refused(adapt):
    with pytest.raises(FseftError, match="the method is auto"):
        adapt(decoder="frozen")
