"""Black-box methods train on features that are computed once and cached."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from fseft.adaptation import feature_cache as step
from fseft.adaptation.configure import configure
from fseft.adaptation.selection import select_support
from fseft.builtin.architectures.resunet import ResUNet
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from tests.sample_data import CASES, adapt, equal_tensors, write_model


@pytest.fixture
def passes(monkeypatch):
    """The names of the crops whose features are computed."""
    written = []
    write = step.write_case
    monkeypatch.setattr(
        step,
        "write_case",
        lambda root, name, *a, **b: written.append(name) or write(root, name, *a, **b),
    )
    return written


ONCE = ("epochs=6", "crops_per_step=2", "feature_passes=2", "early_stopping=false")


def test_features_are_computed_once_for_all_epochs(request_for, workspace, passes):
    adapt(request_for(settings=ONCE), workspace)
    assert passes == [f"{n:04d}-{crop}" for n in range(4) for crop in range(2)]


def test_another_black_box_method_reuses_the_features(request_for, workspace, passes):
    adapt(request_for("linear-probe", settings=ONCE), workspace)
    first = len(passes)
    adapt(request_for("spatial-adapter", settings=ONCE), workspace)
    assert len(passes) == first


@pytest.mark.parametrize("what", ["seed", "structures", "weights", "cases"])
def test_features_of_other_inputs_are_not_reused(what, request_for, workspace, passes):
    adapt(request_for(settings=ONCE), workspace)
    first = len(passes)
    if what == "weights":
        write_model(workspace, seed=5)
    others = tuple(set(CASES) - set(select_support(CASES, 2, 0)))
    changed = {
        "seed": {"seed": 1},
        "structures": {"labels": ("tumour",)},
        "weights": {},
        "cases": {"cases": others},
    }
    adapt(request_for(settings=ONCE, overwrite=True, **changed[what]), workspace)
    assert len(passes) == 2 * first


@pytest.mark.parametrize(("method", "decoder"), [("lora", None), ("linear-probe", "fine-tuned")])
def test_features_that_change_in_training_are_not_cached(
    method, decoder, request_for, workspace, passes
):
    result = adapt(request_for(method, decoder=decoder, settings=ONCE), workspace)
    assert passes == []
    assert result.run.trained_parameters > 100


def test_least_recently_used_features_are_removed(request_for, workspace, monkeypatch):
    monkeypatch.setattr(step, "KEPT", 2)
    for seed in (0, 1, 0, 2):
        adapt(request_for(settings=ONCE, seed=seed, overwrite=True), workspace)
        found = sorted(path.name for path in (workspace.root / "preprocessed").glob("*/features-*"))
        if seed == 0:
            kept = found
    assert len(found) == 2
    assert len(set(found) & set(kept)) == 1


@pytest.mark.full
def test_features_of_a_running_training_are_not_removed(request_for, workspace, monkeypatch):
    monkeypatch.setattr(step, "KEPT", 1)

    class OtherRuns(Callbacks):
        """Starts two other trainings in each epoch."""

        def on_epoch_end(self, epoch):  # noqa: ARG002
            for seed in (1, 2):
                adapt(request_for(settings=ONCE, seed=seed, overwrite=True), workspace)

    settings = (*ONCE, "epochs=2")
    result = adapt(request_for("spatial-adapter", settings=settings), workspace, OtherRuns())
    assert result.run.epochs == 2
    adapt(request_for(settings=ONCE, seed=3), workspace)
    assert len(list((workspace.root / "preprocessed").glob("*/features-*"))) == 1


def test_features_of_another_version_of_the_network_are_not_reused(
    request_for, workspace, passes, monkeypatch
):
    adapt(request_for(settings=ONCE), workspace)
    first = len(passes)
    monkeypatch.setattr(step, "versions", lambda: {"monai": "another"})
    adapt(request_for(settings=ONCE, overwrite=True), workspace)
    assert len(passes) == 2 * first


def test_the_size_of_the_features_is_limited(request_for, workspace, passes, monkeypatch):
    monkeypatch.setattr(step, "LIMIT_BYTES", 1)
    adapt(request_for(settings=ONCE), workspace)
    assert len(passes) == 2 * 2  # one round: both cases, two crops each


@pytest.mark.parametrize("method", ["linear-probe", "spatial-adapter"])
def test_the_same_request_gives_the_same_adapter(method, request_for, workspace, tmp_path):
    results = [
        adapt(request_for(method, settings=ONCE, output=tmp_path / name), workspace)
        for name in "ab"
    ]
    assert equal_tensors(*(load_file(result.adapter) for result in results))


@pytest.mark.full
@pytest.mark.parametrize("method", ["linear-probe", "spatial-adapter"])
def test_cached_and_recomputed_features_reach_about_the_same_loss(
    method, request_for, workspace, tmp_path
):
    losses = {}
    for way in ("cached", "recomputed"):
        settings = (
            "epochs=40",
            "crops_per_step=2",
            "early_stopping=false",
            "augment=false",
            "foreground_fraction=1",
            "loss=dice",
        )
        settings += (f"features={way}",)
        result = adapt(request_for(method, settings=settings, output=tmp_path / way), workspace)
        losses[way] = result.run.final_loss
    assert losses["cached"] == pytest.approx(losses["recomputed"], abs=0.1)


def test_the_feature_extraction_reports_its_progress(request_for, workspace):
    stages = []

    class Stages(Callbacks):
        def progress(self, description, total):
            stages.append((description, total))
            return super().progress(description, total)

    adapt(request_for(settings=ONCE), workspace, Stages())
    assert ("features", 4) in stages


def test_the_solver_needs_no_epochs(request_for, workspace, tmp_path):
    settings = ("crops_per_step=2", "augment=false", "solver=lbfgs")
    run = adapt(request_for(settings=settings, output=tmp_path / "run"), workspace).run
    assert (run.stopped_by, run.epochs) == ("the solver", 1)
    assert run.final_loss < 0.2


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": ("solver=lbfgs", "features=recomputed")},
        {"settings": ("solver=lbfgs",), "decoder": "new"},
    ],
)
def test_a_solver_without_cached_features_is_refused_before_any_work(
    changed, request_for, workspace
):
    with pytest.raises(FseftError, match="requires cached features"):
        configure(request_for(**changed), workspace)


def test_too_little_memory_for_features_is_one_line(request_for, workspace, monkeypatch):
    def too_large(*_):
        return torch.empty(2**50)

    monkeypatch.setattr(ResUNet, "features", too_large)
    with pytest.raises(
        FseftError, match=r"the extraction of features does not fit the memory of the computer"
    ):
        adapt(request_for(settings=ONCE), workspace)
