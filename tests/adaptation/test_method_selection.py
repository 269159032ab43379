"""The method `auto`: chosen on the training cases, within the time budget, without harm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fseft import api
from fseft.adaptation import method_selection
from fseft.adaptation.method_selection import candidate_methods, choose
from fseft.adaptation.strength import interpolate
from fseft.errors import FseftError
from fseft.model_zoo.adapter_file import read_manifest
from fseft.schemas import Candidate

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


def test_a_setting_of_one_method_is_refused():
    with pytest.raises(FseftError, match="no setting 'rank'"):
        candidate_methods({"rank": 4}, api.get_model("phantom-tiny"))


@pytest.mark.parametrize(("parameters", "default"), [(2_800_000, "full"), (62_000_000, "lora")])
def test_small_networks_are_trained_as_a_whole_by_default(parameters, default):
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
            "tiny",
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


def test_methods_are_tried_on_cases_that_they_are_not_trained_on(adapt, monkeypatch):
    monkeypatch.setattr(method_selection, "MIN_STEPS", 0)
    selection = adapt().run.selection
    assert len(selection.candidates) >= 2
    assert selection.candidates[0].method == "lora"
    assert len(selection.candidates[0].dice) == 2
    assert selection.method in [candidate.method for candidate in selection.candidates]


def test_a_repeated_run_keeps_the_choice(adapt, monkeypatch):
    first = adapt().run.selection
    monkeypatch.setattr(method_selection, "MIN_STEPS", 0)
    assert adapt().run.selection == first


def test_modes_of_parts_are_refused(adapt):
    with pytest.raises(FseftError, match="the method is auto"):
        adapt(decoder="frozen")
