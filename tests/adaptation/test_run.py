"""Adaptation: training cases, files of a run, resumption, and what is refused."""

from __future__ import annotations

import errno
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, load_file

from fseft import api
from fseft.adaptation import support_crops
from fseft.adaptation.configure import configure
from fseft.adaptation.selection import select_support
from fseft.builtin import plugin as builtin
from fseft.builtin.methods.full import Full
from fseft.errors import FseftError, PluginError
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.checkpoints import load_checkpoint, save_checkpoint
from fseft.learn.training import memory_estimate
from fseft.learn.training.memory_estimate import OVERHEAD_BYTES
from fseft.learn.training.prefetch import derived_seed
from fseft.model_zoo.adapter_file import read_manifest
from fseft.planning.training_step import FLOPS_PER_SECOND, MEMORY_FRACTION, steps_in_time
from fseft.plugin import ReporterSpec, hookimpl
from fseft.registration import Plugin
from fseft.registry import Registry, registry
from fseft.schemas import Contract, Intensity, Plan, Provenance, Run, TrainingSet
from fseft.volume.image import read_labels, write_labels
from fseft.workspace import Workspace, file_digest, read_document, write_document
from tests.sample_data import (
    CASES,
    LABELS,
    adapt,
    adapt_request,
    equal_tensors,
    write_dataset,
    write_model,
)

NAMES = st.lists(
    st.text("abcdef0123456789", min_size=1, max_size=4), min_size=1, max_size=12, unique=True
)


class Epochs(Callbacks):
    """Record the numbers of the epochs of the latest training."""

    numbers: list = []  # noqa: RUF012 - read after the call

    def __init__(self):
        self.numbers.clear()

    def on_epoch_end(self, epoch):
        self.numbers.append(epoch.number)


def log_of(folder):
    """The log without its seconds."""
    lines = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


# --- the training cases ---------------------------------------------------------------------------


def test_structures_without_a_label_in_a_training_case_are_named(request_for, workspace, caplog):
    request = request_for(k=3)
    path = next(case.label for case in request.dataset.cases if case.name == "a")
    volume = read_labels(path)
    array = volume.array[0]
    write_labels(path, array * (array != LABELS["tumour"]), volume.geometry)
    config = configure(replace(request, cases=("a", "b", "c")), workspace)
    assert config.labelled_in == {"Left kidney": 3, "tumour": 2}
    assert "(tumour in 2 of 3)" in caplog.text


@given(NAMES, st.integers(0, 1000), st.data())
def test_the_training_cases_of_a_smaller_k_are_part_of_those_of_a_larger_one(names, seed, data):
    large = data.draw(st.integers(1, len(names)))
    small = data.draw(st.integers(1, large))
    chosen = select_support(names, large, seed)
    assert select_support(names, small, seed) == chosen[:small]
    assert len(set(chosen)) == large
    assert set(chosen) <= set(names)


@given(NAMES, st.integers(0, 1000), st.randoms())
def test_the_order_in_which_cases_are_listed_does_not_matter(names, seed, random):
    shuffled = random.sample(names, len(names))
    assert select_support(names, len(names), seed) == select_support(shuffled, len(names), seed)


def test_another_seed_chooses_others():
    names = [f"case_{number}" for number in range(20)]
    assert len({select_support(names, 3, seed) for seed in range(10)}) > 5


@given(NAMES, st.integers(0, 100), st.data())
def test_only_cases_of_the_pool_are_chosen(names, seed, data):
    pool = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    assert set(select_support(names, len(pool), seed, pool)) == set(pool)


@pytest.mark.parametrize(
    ("k", "pool", "message"),
    [
        (5, (), "k is 5, but there are 4 labelled cases to choose from. Use k between 1 and 4"),
        (0, (), "k is 0"),
        (3, ("a", "b"), "k is 3, but there are 2"),
        (1, ("a", "bb"), "case bb: is not a labelled case"),
    ],
)
def test_an_impossible_choice_of_cases_is_refused(k, pool, message):
    with pytest.raises(FseftError, match=message):
        select_support(CASES, k, 0, pool)


# --- the files of a run ---------------------------------------------------------------------------


def test_a_run_leaves_the_adapter_the_run_the_log_and_the_training_cases(request_for, workspace):
    result = adapt(request_for("lora", settings=("rank=2",)), workspace)
    assert {path.name for path in result.folder.iterdir()} == {
        "adapter.safetensors",
        "checkpoint.pt",
        "run.json",
        "log.jsonl",
        "progress.png",
        "plan.json",
        "support.json",
        ".lock",
    }
    assert result.folder == workspace.run("blobs", "tiny", "lora", 2, 0)
    run = read_document(result.folder / "run.json", Run)
    assert run == result.run
    assert (run.outcome, run.stopped_by, run.epochs) == ("finished", "all epochs", 2)
    assert run.learning_rate == 0.01
    assert None not in run.recipe.values()
    assert run.final_loss == log_of(result.folder)[-1]["loss"]
    assert [line["epoch"] for line in log_of(result.folder)] == [1, 2]
    support = read_document(result.folder / "support.json", TrainingSet)
    assert support.cases == select_support(CASES, 2, 0)


def test_the_manifest_says_all_that_is_needed(request_for, workspace):
    result = adapt(request_for("lora", settings=("rank=2",), seed=3), workspace)
    manifest = read_manifest(result.adapter)
    assert manifest.config["rank"] == 2
    assert manifest.backbone_sha256 == file_digest(workspace.model("tiny") / "weights.safetensors")
    assert (manifest.model, manifest.dataset, manifest.channels) == ("tiny", "blobs", ("CT",))
    assert manifest.labels == LABELS
    assert manifest.support == select_support(CASES, 2, 3)
    assert (manifest.k, manifest.seed) == (2, 3)
    assert manifest.init_seed == derived_seed(3, "init")
    assert manifest.licence == "CC-BY-4.0"
    assert manifest.preprocessing.spacing_mm == (1.5, 1.5, 1.5)
    assert result.run.head_rows == {"Left kidney": "kidney_left"}


@pytest.mark.parametrize("method", ["linear-probe", "lora"])
def test_the_file_holds_the_trained_tensors_and_nothing_else(method, request_for, workspace):
    result = adapt(request_for(method), workspace)
    tensors = load_file(result.adapter)
    assert sum(tensor.numel() for tensor in tensors.values()) == result.run.trained_parameters
    assert {"head.weight", "head.bias"} <= set(tensors)
    assert not any(name.endswith(".original") for name in tensors)
    if method == "linear-probe":
        assert len(tensors) == 2


def test_zero_shot_trains_nothing_and_saves_the_head(request_for, workspace):
    result = adapt(request_for("zero-shot"), workspace)
    assert set(load_file(result.adapter)) == {"head.weight", "head.bias"}
    assert (result.run.trained_parameters, result.run.epochs) == (0, 0)
    assert result.run.stopped_by == "nothing to train"


def test_training_learns(request_for, workspace):
    settings = ("epochs=12", "learning_rate=0.01", "loss=dice_ce")
    result = adapt(request_for("lora", settings=settings), workspace)
    losses = [line["loss"] for line in log_of(result.folder)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_chosen_structures_keep_their_label_values(request_for, workspace):
    result = adapt(request_for(labels=("tumour",)), workspace)
    assert result.run.labels == {"tumour": 7}
    assert load_file(result.adapter)["head.bias"].shape == (2,)


def test_the_output_folder_and_the_cases_can_be_chosen(request_for, workspace, tmp_path):
    result = adapt(request_for(cases=("b", "d"), output=tmp_path / "here"), workspace)
    assert result.folder == tmp_path / "here"
    assert set(read_manifest(result.adapter).support) == {"b", "d"}


def test_every_method_sees_the_same_cases_and_crops(request_for, workspace):
    losses = {}
    for method in ("linear-probe", "lora"):
        # Without training each loss depends on the crop alone.
        settings = ("learning_rate=1e-30", "features=recomputed")
        result = adapt(request_for(method, settings=settings, decoder="frozen"), workspace)
        losses[method] = [line["loss"] for line in log_of(result.folder)]
    assert losses["lora"] == pytest.approx(losses["linear-probe"], abs=1e-6)


def test_callbacks_observe_every_case_and_every_epoch(request_for, workspace):
    epochs, cases = [], []

    class Recorder(Callbacks):
        @contextmanager
        def progress(self, description, total):
            yield lambda case: cases.append((description, total, case))

        def on_epoch_end(self, epoch):
            epochs.append(epoch)

    adapt(request_for(), workspace, Recorder())
    assert [epoch.number for epoch in epochs] == [1, 2]
    preprocessed = {case for stage, total, case in cases if (stage, total) == ("preprocess", 2)}
    assert preprocessed == {*select_support(CASES, 2, 0)}


def test_a_run_with_the_former_names_of_its_settings_is_not_repeated(request_for, workspace):
    first = adapt(request_for("lora", settings=("ratio=4", "warm_up=0.1")), workspace)
    path = first.folder / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["config"]["ratio"] = run["config"].pop("lora_plus_ratio")
    run["recipe"]["warm_up"] = run["recipe"].pop("warmup_fraction")
    path.write_text(json.dumps(run), encoding="utf-8")
    request = request_for("lora", settings=("lora_plus_ratio=4", "warmup_fraction=0.1"))
    assert adapt(request, workspace).already_done


def test_a_time_budget_ends_the_run(request_for, workspace):
    result = adapt(request_for(minutes=1 / 60, settings=("epochs=100000",)), workspace)
    assert result.run.stopped_by == "time budget"


@pytest.mark.parametrize(("method", "rate"), [("lora", "5e3"), ("linear-probe", "1e8")])
def test_a_training_that_diverged_is_reported_again_by_each_repetition(
    method, rate, request_for, workspace, caplog
):
    settings = (f"learning_rate={rate}", "optimizer=sgd", "max_grad_norm=null")
    for done in (False, True):
        caplog.clear()
        result = adapt(request_for(method, settings=settings), workspace)
        assert (result.run.diverged, result.already_done) == (True, done)
        assert "the training diverged" in caplog.text
        assert "lower the learning rate" in caplog.text
    assert json.loads((result.folder / "run.json").read_text())["diverged"] is True


def test_structures_that_were_not_learned_are_named(request_for, workspace, caplog):
    result = adapt(request_for(settings=("learning_rate=1e-9", "epochs=1")), workspace)
    assert not result.run.diverged
    assert result.run.training_dice.keys() == {"Left kidney", "tumour"}
    missed = [name for name, dice in result.run.training_dice.items() if dice < 0.05]
    assert missed
    for name in missed:
        assert f"{name} ({result.run.training_dice[name]:.2f})" in caplog.text


def test_an_impossible_rank_is_refused_before_anything_is_preprocessed_or_written(
    request_for, workspace
):
    stages = []

    class Stages(Callbacks):
        def progress(self, description, total):
            stages.append(description)
            return super().progress(description, total)

    request = request_for("lora", settings=("rank=9999",))
    with pytest.raises(FseftError, match="rank is 9999"):
        adapt(request, workspace, Stages())
    assert stages == ["measure"]
    assert not any(path.name == "run.json" for path in workspace.root.rglob("*"))


# --- finished and interrupted runs ----------------------------------------------------------------


def test_a_second_call_does_nothing(request_for, workspace):
    first = adapt(request_for(), workspace)
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = adapt(request_for(), workspace, Epochs())
    assert Epochs.numbers == []
    assert again.already_done
    assert again.run == first.run
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("changed", "differences"),
    [
        ({"settings": ("weight_decay=0.1",)}, r"weight_decay 0.0 \(requested 0.1\)"),
        pytest.param(
            {"labels": ("tumour",)}, "structures Left kidney, tumour", marks=pytest.mark.full
        ),
        ({"cases": ("a", "b")}, "training cases d, c"),
        pytest.param(
            {"mapping": {"tumour": "liver"}},
            "rows of the head from Left kidney=kidney_left",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_run_with_other_settings_is_overwritten_only_on_request(
    changed, differences, request_for, workspace
):
    adapt(request_for(cases=("c", "d")), workspace)
    other = request_for(**{"cases": ("c", "d"), **changed})
    with pytest.raises(FseftError, match=rf"already contains a run with {differences}\."):
        adapt(other, workspace)
    again = adapt(replace(other, overwrite=True), workspace)
    assert not again.already_done
    assert again.resumed_from == 0
    assert len(log_of(again.folder)) == 2


@pytest.mark.parametrize("method", ["linear-probe", "lora"])
def test_every_training_case_is_used_once_however_small_the_time_budget(
    method, request_for, workspace
):
    result = adapt(request_for(method, minutes=1e-9), workspace)
    assert (result.run.epochs, result.run.stopped_by) == (1, "time budget")
    assert result.adapter.is_file()


def test_too_little_memory_for_a_step_is_one_line(request_for, workspace, monkeypatch):
    def short(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("fseft.adaptation.crop_training.segmentation_loss", short)
    with pytest.raises(FseftError, match="a training step does not fit the memory of the computer"):
        adapt(request_for("lora"), workspace)


def test_intensities_are_scaled_as_the_model_was_trained(request_for, workspace):
    scale = Intensity(scheme="clip-zscore", low=-980, high=400, mean=-300, std=350)
    write_model(
        workspace, "clipped", contract=Contract(intensity={"ct": scale}, patch_size=(32, 32, 32))
    )
    adapted = adapt(
        request_for("zero-shot", model="clipped", mapping={"Left kidney": "kidney_left"}),
        workspace,
    )
    assert read_manifest(adapted.adapter).preprocessing.intensity == (scale,)


def test_without_training_overlapping_classes_are_written_as_their_owner_does(
    request_for, workspace
):
    nested = ("liver", "kidney_left", "kidney_tumor")
    write_model(workspace, "nested", classes=nested, writing_order=nested)
    mapping = {"Left kidney": "kidney_left", "tumour": "kidney_tumor"}
    orders = {}
    for method in ("zero-shot", "linear-probe"):
        adapter = adapt(request_for(method, model="nested", mapping=mapping), workspace).adapter
        orders[method] = read_manifest(adapter).writing_order
    assert orders == {"zero-shot": ("Left kidney", "tumour"), "linear-probe": ()}


def test_without_training_the_patch_is_that_of_the_model_however_little_memory_is_left(
    request_for, workspace
):
    write_model(workspace, "long", contract=Contract(patch_size=(64, 32, 32)))
    memory = OVERHEAD_BYTES + 10_000_000  # of one crop of 32 x 32 x 32 voxels
    options = {"mapping": {"Left kidney": "kidney_left"}, "memory_bytes": memory}
    patches = {}
    for method in ("zero-shot", "linear-probe"):
        adapter = adapt(request_for(method, model="long", **options), workspace).adapter
        patches[method] = read_manifest(adapter).preprocessing.patch_size
    assert patches == {"zero-shot": (64, 32, 32), "linear-probe": (32, 32, 32)}


def test_a_run_with_other_weights_of_the_model_is_not_reused(request_for, workspace):
    first = load_file(adapt(request_for(), workspace).adapter)
    write_model(workspace, seed=5)
    with pytest.raises(FseftError, match=r"already contains a run with other weights\."):
        adapt(request_for(), workspace)
    again = adapt(request_for(overwrite=True), workspace)
    assert not again.already_done
    assert not equal_tensors(load_file(again.adapter), first)


def test_a_damaged_adapter_is_trained_again(request_for, workspace, caplog):
    result = adapt(request_for(), workspace)
    intact = result.adapter.read_bytes()
    result.adapter.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    again = adapt(request_for(), workspace)
    assert not again.already_done
    assert "the adapter is damaged: it is trained again" in caplog.text
    assert equal_tensors(load(intact), load_file(again.adapter))


STATE = {
    "tensors": {},
    "method": {},
    "optimizer": {"state": {}, "param_groups": []},
    "average": [],
    "losses": [0.5],
    "step": 1,
    "seconds": 1.0,
    "stopped_by": "",
}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ([1, 2], "a valid checkpoint of a training"),
        ({key: STATE[key] for key in STATE if key != "optimizer"}, "optimizer: is missing"),
        ({**STATE, "optimizer": [1]}, "optimizer: "),
        ({**STATE, "tensors": {"a": 1}}, "tensors.a: "),
        ({**STATE, "losses": ["low"]}, r"losses\.0: must be a number"),
        ({**STATE, "step": -1}, "step: must be at least 0"),
    ],
)
def test_a_checkpoint_of_another_form_is_refused_with_file_and_key(tmp_path, content, cause):
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    with pytest.raises(FseftError, match=rf"checkpoint\.pt: is not .*{cause}"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_training_is_refused(request_for, workspace):
    run = adapt(request_for("lora", settings=("epochs=1",)), workspace)
    save_checkpoint(run.folder / "checkpoint.pt", {**STATE, "tensors": {"a": torch.ones(1)}})
    with pytest.raises(FseftError, match="the adapter does not fit the network"):
        adapt(request_for("lora", settings=("epochs=2",)), workspace)


def test_a_damaged_training_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = {**STATE, "tensors": {"a": torch.ones(10_000)}}
    save_checkpoint(path, state)
    assert torch.equal(load_checkpoint(path)["tensors"]["a"], torch.ones(10_000))
    damaged = bytearray(path.read_bytes())
    damaged[20_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(FseftError, match="the checkpoint cannot be read"):
        load_checkpoint(path)


class RaiseAfter(Callbacks):
    """Raises an exception after the first epoch."""

    def __init__(self, error):
        self.error = error

    def on_epoch_end(self, _):
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome", "cause"),
    [
        (FseftError("the loss is nan", hint="Lower it."), "failed", "the loss is nan. Lower it."),
        (KeyError("layer"), "failed", "KeyError: 'layer'"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
    ],
)
def test_the_document_of_a_run_says_how_it_ended(
    error, outcome, cause, request_for, workspace, tmp_path
):
    folder = tmp_path / "run"
    with pytest.raises(type(error)):
        adapt(request_for(output=folder), workspace, RaiseAfter(error))
    run = read_document(folder / "run.json", Run)
    assert (run.outcome, run.stopped_by) == (outcome, cause)
    assert adapt(request_for(output=folder), workspace).run.outcome == "finished"


def test_an_adapter_stays_until_the_new_one_is_complete(request_for, workspace):
    first = adapt(request_for(), workspace)
    content = first.adapter.read_bytes()
    longer = request_for(settings=("epochs=3",), overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        adapt(longer, workspace, RaiseAfter(KeyboardInterrupt()))
    assert first.adapter.read_bytes() == content
    assert api.Adapter.load(first.adapter).run is None  # the document is that of the new run
    assert adapt(replace(longer, overwrite=False), workspace).run.epochs == 3
    assert first.adapter.read_bytes() != content


def test_a_finished_run_is_repeated_with_overwrite(request_for, workspace):
    first = adapt(request_for(), workspace)
    again = adapt(request_for(overwrite=True), workspace, Epochs())
    assert not again.already_done
    assert Epochs.numbers == [1, 2]
    assert len(log_of(first.folder)) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"k": 0}, "k is 0"), ({"k": 9}, "k is 9"), ({"cases": ("z",)}, "case z: is not a labelled")],
)
def test_a_wrong_number_of_cases_is_refused_before_anything_is_measured(
    changed, message, request_for, tmp_path
):
    empty = Workspace(tmp_path / "empty")
    request = request_for("scratch", model="none", **changed)
    with pytest.raises(FseftError, match=message):
        adapt(request, empty)
    assert not empty.root.exists()


def test_the_packages_of_the_training_are_in_the_run_and_in_the_adapter(request_for, workspace):
    settings = ("loss=dice_ce", "schedule=poly", "augment=noise")
    result = adapt(request_for("lora", settings=settings), workspace)
    names = {plugin.name for plugin in result.run.plugins}
    assert names == {"lora", "resunet", "dice_ce", "adamw", "poly", "noise"}
    assert {plugin.distribution for plugin in result.run.plugins} == {"fseft"}
    assert read_manifest(result.adapter).plugins == result.run.plugins


def test_a_run_with_the_loss_of_another_package_is_another_run(request_for, workspace, monkeypatch):
    settings = ("loss=dice_ce",)
    adapt(request_for(settings=settings), workspace)
    registration = registry().resolve("loss", "dice_ce")
    mine = replace(registration, source=replace(registration.source, distribution="fseft-mine"))
    monkeypatch.setitem(registry()._registrations, ("loss", "dice_ce"), [mine])
    with pytest.raises(FseftError, match=r"dice_ce of fseft \(now of fseft-mine\)"):
        adapt(request_for(settings=settings), workspace)


def test_the_augmentations_are_built_once(request_for, workspace, monkeypatch):
    built = []
    load = support_crops.load_augmentations
    monkeypatch.setattr(
        support_crops,
        "load_augmentations",
        lambda *names, **options: built.append(names) or load(*names, **options),
    )
    assert adapt(request_for("lora"), workspace).run.epochs > 1
    assert len(built) == 1


def test_crops_exchange_boxes_if_it_is_set(request_for, workspace, tmp_path):
    def trained(probability):
        settings = ("epochs=1", "crops_per_step=2", f"cutmix_probability={probability}")
        request = request_for("ssf", settings=settings, output=tmp_path / str(probability))
        return load_file(adapt(request, workspace).adapter)

    assert not equal_tensors(trained(0), trained(1))


def test_a_run_by_another_version_of_a_plugin_is_another_run(request_for, workspace, monkeypatch):
    def version(number):
        return lambda *_: (
            Provenance(name="linear-probe", distribution="fseft-mine", version=number),
        )

    monkeypatch.setattr("fseft.adaptation.documents._provenance", version("0.1.0"))
    adapt(request_for(), workspace)
    monkeypatch.setattr("fseft.adaptation.documents._provenance", version("0.2.0"))
    with pytest.raises(
        FseftError, match=r"already contains a run with fseft-mine 0\.1\.0 \(installed 0\.2\.0\)"
    ):
        adapt(request_for(), workspace)


@pytest.mark.parametrize("method", ["linear-probe", "lora"])
def test_the_same_request_gives_the_same_adapter_bit_for_bit(
    method, request_for, workspace, tmp_path
):
    first, second = (adapt(request_for(method, output=tmp_path / name), workspace) for name in "ab")
    assert equal_tensors(load_file(first.adapter), load_file(second.adapter))
    assert log_of(first.folder) == log_of(second.folder)


KILLED = """
import pickle, sys
from tests.sample_data import adapt
adapt(*pickle.load(sys.stdin.buffer))
"""


@pytest.mark.full
def test_a_killed_run_resumes_to_the_same_adapter(request_for, workspace, tmp_path):
    settings = ("epochs=12", "checkpoint_seconds=0")
    request = request_for("lora", settings=settings, output=tmp_path / "killed")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, env=os.environ
    )
    process.stdin.write(pickle.dumps((request, workspace)))
    process.stdin.close()
    while not (request.output / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (request.output / "adapter.safetensors").exists()
    assert read_document(request.output / "run.json", Run).outcome == "running"
    resumed = adapt(request, workspace)
    whole = adapt(request_for("lora", settings=settings, output=tmp_path / "whole"), workspace)
    assert 0 < resumed.resumed_from < 12
    assert equal_tensors(load_file(resumed.adapter), load_file(whole.adapter))
    assert log_of(resumed.folder) == log_of(whole.folder)
    assert {path.name for path in resumed.folder.iterdir()} == {
        path.name for path in whole.folder.iterdir()
    }


def test_a_run_is_resumed_as_it_was_planned_also_on_a_machine_with_another_memory(
    request_for, workspace, monkeypatch
):
    class Stopped(Callbacks):
        def on_epoch_end(self, *_):
            raise KeyboardInterrupt

    def with_memory(size):
        monkeypatch.setattr(memory_estimate, "installed_bytes", lambda: size)

    write_model(workspace, "long", contract=Contract(patch_size=(64, 32, 32)))
    with_memory(int((OVERHEAD_BYTES + 10_000_000) / MEMORY_FRACTION))  # of one crop of 32³ voxels
    request = request_for("bias", model="long")
    with pytest.raises(KeyboardInterrupt):
        adapt(request, workspace, Stopped())
    planned = workspace.run("blobs", "long", "bias", request.k, 0) / "plan.json"
    before = planned.read_text()
    with_memory(1 << 40)
    for _ in range(2):  # resumed, and then finished
        result = adapt(request, workspace)
        assert (result.folder / "plan.json").read_text() == before
    assert result.already_done
    other = adapt(replace(request, overwrite=True), workspace)
    assert (other.folder / "plan.json").read_text() != before


def test_a_checkpoint_of_unknown_settings_is_not_resumed(request_for, workspace, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"of something else")
    with pytest.raises(FseftError, match="already contains a run with unknown settings"):
        adapt(request_for(output=tmp_path / "run"), workspace)
    result = adapt(request_for(output=tmp_path / "run", overwrite=True), workspace)
    assert (result.resumed_from, result.run.outcome) == (0, "finished")


def test_a_finished_run_continues_with_more_epochs(request_for, workspace):
    def run(epochs, **changed):
        return adapt(request_for("lora", settings=(f"epochs={epochs}",), **changed), workspace)

    assert run(2).resumed_from == 0
    longer = run(3)
    assert (longer.resumed_from, longer.run.epochs, longer.run.recipe["epochs"]) == (2, 3, 3)
    assert [line["epoch"] for line in log_of(longer.folder)] == [1, 2, 3]
    assert run(3).already_done
    with pytest.raises(FseftError, match=r"epochs 3 \(requested 2\)"):
        run(2)


def test_a_run_that_continues_keeps_the_default_learning_rate_of_its_start(
    request_for, workspace, monkeypatch
):
    def run(epochs):
        return adapt(request_for("full", settings=(f"epochs={epochs}",)), workspace).run

    with monkeypatch.context() as former:
        former.setattr(Full, "learning_rate_if_small", 3e-3)
        assert run(2).learning_rate == 3e-3
    continued = run(3)
    assert (continued.epochs, continued.learning_rate) == (3, 3e-3)


def test_a_finished_run_continues_with_more_minutes_and_the_same_crops(request_for, workspace):
    def run(minutes):
        settings = ("epochs=3", "crops_per_step=null")
        return adapt(request_for("lora", settings=settings, minutes=minutes), workspace)

    first = run(1e-6)
    assert (first.run.epochs, first.run.stopped_by) == (1, "time budget")
    longer = run(10_000)
    assert (longer.resumed_from, longer.run.epochs) == (1, 3)
    plan = read_document(longer.folder / "plan.json", Plan)
    assert (plan.crops_per_step, plan.minutes) == (2, 10_000)
    assert run(10_000).already_done


def test_a_run_that_continues_keeps_its_plan(request_for, workspace):
    def planned():
        request = request_for("lora", minutes=10.0, output=folder)
        return configure(request, workspace).plan.preprocessing.spacing_mm

    folder = adapt(request_for("lora", minutes=1e-6), workspace).folder
    plan = read_document(folder / "plan.json", Plan)
    preprocessing = plan.preprocessing.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)})
    write_document(
        folder / "plan.json", plan.model_copy(update={"preprocessing": preprocessing})
    )  # as of a short training, whose patch shows more
    assert planned() == (2.0, 2.0, 2.0)
    (folder / "checkpoint.pt").unlink()
    assert planned() == plan.preprocessing.spacing_mm


def test_without_a_checkpoint_the_crops_of_a_former_run_do_not_matter(request_for, workspace):
    def crops(minutes):
        settings = ("epochs=3", "crops_per_step=null")
        result = adapt(request_for("lora", settings=settings, minutes=minutes), workspace)
        return read_document(result.folder / "plan.json", Plan).crops_per_step, result.folder

    few, folder = crops(1e-6)
    for name in ("checkpoint.pt", "adapter.safetensors"):
        (folder / name).unlink()
    assert crops(10_000)[0] > few


def test_without_its_checkpoint_a_finished_run_does_not_continue(request_for, workspace):
    folder = adapt(request_for("lora", settings=("epochs=1",)), workspace).folder
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(FseftError, match=r"epochs 1 \(requested 2\)"):
        adapt(request_for("lora", settings=("epochs=2",)), workspace)


def test_an_interrupted_run_says_which_epochs_are_kept(request_for, workspace, caplog):
    class Interrupt(Callbacks):
        def on_epoch_end(self, epoch):
            if epoch.number == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(request_for("lora", settings=("epochs=3",)), workspace, Interrupt())
    assert "stopped: the checkpoint after epoch 1 is kept" in caplog.text


def test_an_output_that_is_a_file_is_refused_before_the_data_is_read(
    request_for, workspace, tmp_path
):
    (tmp_path / "file").touch()
    with pytest.raises(FseftError, match="file: is a file, not a folder"):
        configure(request_for(output=tmp_path / "file"), workspace)


def test_an_adapter_describes_seed_and_number_of_its_training_cases(request_for, workspace):
    manifest = read_manifest(adapt(request_for(k=2, seed=5), workspace).adapter)
    assert (manifest.k, manifest.seed) == (2, 5)
    assert manifest.init_seed == derived_seed(5, "init")


def test_a_damaged_checkpoint_is_reported_with_its_file(request_for, workspace):
    result = adapt(request_for(), workspace)
    result.adapter.unlink()
    (result.folder / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(
        FseftError, match=r"checkpoint\.pt: the checkpoint cannot be read.*Delete it"
    ):
        adapt(request_for(), workspace)


# --- refused requests -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "lara"}, "unknown method 'lara'. Did you mean lora"),
        ({"model": "tinny"}, "unknown model 'tinny'. Did you mean tiny"),
        ({"labels": ("tumor",)}, "the dataset has no structure 'tumor'. Did you mean tumour"),
        ({"settings": ("epoch=3",)}, "no setting 'epoch'. Did you mean epochs"),
        ({"cases": ("z",)}, "case z: is not a labelled case"),
        ({"k": 9}, "k is 9, but there are 4"),
        (
            {"method": "lora", "model": "none"},
            "'lora' starts from a pre-trained model.*Use the method scratch",
        ),
        (
            {"method": "zero-shot", "labels": ("tumour",)},
            "'tiny' has no class for the structures tumour",
        ),
        ({"method": "zero-shot", "decoder": "new"}, "'zero-shot' trains nothing"),
        ({"settings": ("mirror=true",)}, "mirror=true would swap left and right"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_with_the_remedy(
    changed, message, request_for, workspace
):
    with pytest.raises(FseftError, match=message) as caught:
        adapt(request_for(**changed), workspace)
    assert "\n" not in str(caught.value)
    assert not (workspace.root / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none(request_for, workspace):
    with pytest.raises(
        FseftError, match=r"the device cuda.*has no CUDA.*Use the device cpu or auto"
    ):
        adapt(request_for(device="cuda"), workspace)


def test_a_structure_that_no_case_has_is_refused_by_name_and_left_out_else(workspace, tmp_path):
    folder = write_dataset(tmp_path / "d", labels={**LABELS, "cyst": 9})
    settings = ("epochs=1", "crops_per_step=1")
    request = adapt_request(folder, "tiny", "linear-probe", workspace, k=2, settings=settings)
    assert "cyst" not in adapt(request, workspace).run.labels
    with pytest.raises(FseftError, match="'cyst' is in no case"):
        adapt(replace(request, labels=("cyst",)), workspace)


def test_a_dataset_without_labels_is_refused(workspace, tmp_path):
    folder = write_dataset(tmp_path / "d", cases=("a", "b"))
    for path in (folder / "labelsTr").iterdir():
        path.unlink()
    with pytest.raises(FseftError, match="no case has a label"):
        adapt(adapt_request(folder, "tiny", "linear-probe", workspace, k=1), workspace)


def test_cases_without_any_structure_are_not_chosen(workspace, tmp_path):
    folder = write_dataset(tmp_path / "d", cases=("a", "b", "c"))
    label = read_labels(folder / "labelsTr" / "b.nii.gz")
    write_labels(folder / "labelsTr" / "b.nii.gz", 0 * label.array[0], label.geometry)
    settings = ("epochs=1", "crops_per_step=1")
    request = adapt_request(folder, "tiny", "linear-probe", workspace, k=2, settings=settings)
    assert set(read_manifest(adapt(request, workspace).adapter).support) == {"a", "c"}


def test_random_weights_need_no_model(request_for, tmp_path):
    result = adapt(request_for("scratch", model="none"), Workspace(tmp_path / "empty"))
    assert read_manifest(result.adapter).backbone_sha256 == ""
    assert result.run.head_rows == {}


# --- plans, callbacks and reporters ---------------------------------------------------------------


def test_a_stored_plan_is_used(request_for, workspace, blobs, caplog):
    _, plan = api.plan(blobs, "tiny", workspace=workspace, device="cpu", memory_bytes=10**9)
    edited = plan.model_copy(update={"crops_per_step": 3, "warnings": ("watch out",)})
    write_document(workspace.plan("blobs", "tiny"), edited)
    adapt(request_for(device="auto"), workspace)
    assert caplog.messages[0] == "watch out"
    assert read_document(workspace.plan("blobs", "tiny"), Plan) == edited


def test_a_plan_for_the_training_cases_is_stored_with_the_run_only(request_for, workspace):
    workspace.plan("blobs", "tiny").unlink(missing_ok=True)
    result = adapt(request_for(), workspace)
    assert read_document(result.folder / "plan.json", Plan).dataset == "blobs"
    assert not workspace.plan("blobs", "tiny").exists()


def test_without_epochs_or_minutes_the_plan_limits_the_epochs(workspace, blobs):
    config = configure(adapt_request(blobs, "tiny", "lora", workspace, k=2), workspace)
    steps = steps_in_time(config.plan, config.crops_per_step)
    assert config.training.epochs == min(200, math.ceil(steps / 2))
    assert config.request.minutes is None


def test_minutes_of_a_stored_plan_are_the_time_budget(workspace, blobs):
    api.plan(blobs, "tiny", workspace=workspace, minutes=3)
    request = adapt_request(blobs, "tiny", "lora", workspace, k=2, device="auto")
    assert configure(request, workspace).request.minutes == 3


def test_an_alternative_plan_is_used_by_name(request_for, workspace, blobs):
    api.plan(blobs, "tiny", workspace=workspace, spacing_mm=(2, 2, 2), name="coarse")
    config = configure(request_for(device="auto", plan_name="coarse"), workspace)
    assert config.plan.preprocessing.spacing_mm == (2, 2, 2)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"spacing_mm": (1, 1, 1)}, "spacing"),
        ({"patch_size": (32, 32, 32)}, "patch"),
        ({"memory_bytes": 10**9}, "memory"),
    ],
)
def test_options_that_an_alternative_plan_decides_are_refused(
    request_for, workspace, blobs, options, name
):
    api.plan(blobs, "tiny", workspace=workspace, device="cpu", name="fixed")
    with pytest.raises(FseftError, match=f"the plan 'fixed' decides `{name}`"):
        configure(request_for(plan_name="fixed", **options), workspace)


def test_another_device_than_that_of_an_alternative_plan_is_refused(
    request_for, workspace, blobs, monkeypatch
):
    _, plan = api.plan(blobs, "tiny", workspace=workspace, device="cpu", name="fixed")
    request = request_for(device="cpu", plan_name="fixed")
    assert configure(request, workspace).plan.device == "cpu"
    elsewhere = plan.model_copy(update={"device": "cuda"})
    write_document(workspace.plan("blobs", "tiny", "fixed"), elsewhere)
    monkeypatch.setattr("fseft.planning.plan._is_available", lambda _: True)
    with pytest.raises(FseftError, match="the plan 'fixed' decides `device`"):
        configure(request, workspace)


@pytest.mark.parametrize("planned", [False, True])
def test_crops_that_exceed_the_memory_are_refused(workspace, blobs, planned):
    memory = OVERHEAD_BYTES + 50_000_000
    request = adapt_request(blobs, "tiny", "lora", workspace, k=1, settings=("crops_per_step=500",))
    if planned:
        api.plan(blobs, "tiny", workspace=workspace, device="cpu", memory_bytes=memory)
        request = replace(request, device="auto")
    else:
        request = replace(request, memory_bytes=memory)
    with pytest.raises(FseftError, match=r"500 crops of .* voxels"):
        configure(request, workspace)


def test_the_time_of_the_whole_network_does_not_limit_steps_on_cached_features(
    workspace, blobs, monkeypatch
):
    monkeypatch.setitem(FLOPS_PER_SECOND, "cpu", 1e7)
    training = {}
    for method in ("linear-probe", "lora"):
        config = configure(adapt_request(blobs, "tiny", method, workspace, k=2), workspace)
        training[method] = (config.training.epochs < 200, config.crops_per_step)
    assert training == {"linear-probe": (False, 6), "lora": (True, 2)}


def test_other_wording_of_a_plan_does_not_repeat_a_run(request_for, workspace, blobs):
    _, plan = api.plan(blobs, "tiny", workspace=workspace, device="cpu")
    adapt(request_for(device="auto"), workspace)
    other = plan.model_copy(update={"decisions": (), "warnings": ("new words",), "memory_bytes": 1})
    write_document(workspace.plan("blobs", "tiny"), other)
    assert adapt(request_for(device="auto"), workspace).already_done


def test_a_run_with_other_settings_is_kept_without_overwrite(request_for, workspace):
    first = adapt(request_for(), workspace)
    before = first.adapter.read_bytes()
    other = request_for(settings=("epochs=1",), minutes=1.0)
    with pytest.raises(
        FseftError,
        match=r"already contains a run with epochs 2 \(requested 1\); minutes unset \(requested 1\.0\).*overwrite",
    ):
        adapt(other, workspace)
    assert first.adapter.read_bytes() == before
    second = adapt(replace(other, overwrite=True), workspace)
    assert (second.folder, second.run.epochs) == (first.folder, 1)


def test_callbacks_receive_the_configuration_before_training(request_for, workspace):
    events = []

    class Recorder(Callbacks):
        def on_start(self, config, first_epoch):
            events.append((config.support.cases, first_epoch))

        def on_epoch_end(self, epoch):
            events.append(epoch.number)

    result = adapt(request_for(), workspace, Recorder())
    assert events == [(read_manifest(result.adapter).support, 1), 1, 2]


@pytest.mark.parametrize(
    ("method", "settings", "epochs"),
    [("lora", (), 3), ("lora", ("early_stopping=true",), 1), ("linear-probe", (), 1)],
)
def test_a_plateau_ends_trainings_on_cached_features_and_others_if_asked_to(
    method, settings, epochs, blobs, workspace, monkeypatch
):
    monkeypatch.setattr("fseft.learn.training_loop.has_plateaued", lambda _: True)
    settings = ("epochs=3", "crops_per_step=1", "feature_passes=1", *settings)
    request = adapt_request(blobs, "tiny", method, workspace, k=2, settings=settings)
    assert adapt(request, workspace).run.epochs == epochs


def test_a_training_that_ended_too_early_is_a_warning(request_for, workspace, caplog):
    adapt(request_for(), workspace)
    assert caplog.messages[0].startswith(
        "training ended after 2 epochs (all epochs) before the loss converged"
    )


WATCHED = []


class Watcher:
    """A reporter that notes when the adapter is there."""

    def __init__(self, folder):
        self.adapter = folder / "adapter.safetensors"

    @hookimpl
    def fseft_checkpoint_saved(self, path):
        WATCHED.append(path.name)

    @hookimpl
    def fseft_run_end(self, run, outcome):
        WATCHED.append((outcome, run.outcome, self.adapter.is_file()))


@pytest.fixture
def reporter(monkeypatch):
    """Offer the reporter `foreign` of another package, made by a factory of these tests."""

    def offer(factory):
        module = ModuleType("foreign")
        specs = [ReporterSpec(name="foreign", factory=f"{__name__}:{factory}")]
        module.fseft_reporters = hookimpl(lambda: specs, specname="fseft_reporters")
        plugins = [
            Plugin("builtin", "fseft", "1.0", builtin),
            Plugin("foreign", "fseft-foreign", "1.0", module),
        ]
        installed = Registry(plugins)
        monkeypatch.setattr("fseft.experiment.reporters.registry", lambda: installed)
        monkeypatch.setattr("fseft.adaptation.configure.registry", lambda: installed)

    return offer


def test_reporters_learn_of_the_adapter_once_it_exists(request_for, workspace, reporter):
    reporter("Watcher")
    adapt(request_for(reporters=("foreign",)), workspace)
    assert WATCHED[-2:] == ["adapter.safetensors", ("finished", "finished", True)]


def test_reporters_learn_of_a_run_whose_adapter_cannot_be_written(
    request_for, workspace, reporter, monkeypatch
):
    def full(*_, **__):
        raise FseftError("the disk is full")

    monkeypatch.setattr("fseft.adaptation.run.write_adapter", full)
    reporter("Watcher")
    with pytest.raises(FseftError, match="the disk is full"):
        adapt(request_for(reporters=("foreign",)), workspace)
    assert WATCHED[-1][0] == "the disk is full."


@pytest.mark.parametrize(
    "reporters", [("foreign",), ("foreign", "jsonl", "fseft-foreign:foreign"), ("jsonl",)]
)
def test_the_log_is_written_once_with_any_reporters(reporters, request_for, workspace, reporter):
    reporter("Watcher")
    folder = adapt(request_for(reporters=reporters), workspace).folder
    assert [line["epoch"] for line in log_of(folder)] == [1, 2]


class Fails:
    """A reporter that fails at each epoch."""

    def __init__(self, folder):
        pass

    @hookimpl
    def fseft_epoch_end(self):
        raise ConnectionError("no luck")


def test_a_failing_reporter_is_logged_once_with_its_package(
    request_for, workspace, reporter, caplog
):
    reporter("Fails")
    run = adapt(request_for(reporters=("foreign",)), workspace).run
    assert run.outcome == "finished"
    (problem,) = [line for line in caplog.messages if "foreign" in line]
    assert problem.startswith(
        "the reporter 'foreign' of the package fseft-foreign 1.0 failed in fseft_epoch_end (ConnectionError: no luck); "
    )


@pytest.mark.parametrize(
    ("factory", "message"),
    [("gives_nothing", "a NoneType without"), ("missing", "cannot be imported")],
)
def test_a_reporter_that_cannot_be_used_is_refused_with_its_package(
    factory, message, request_for, workspace, reporter
):
    reporter(factory)
    with pytest.raises(PluginError, match=rf"(?=.*fseft-foreign 1\.0).*{message}"):
        adapt(request_for(reporters=("foreign",)), workspace)
    assert not list((workspace.root / "runs").rglob("run.json"))


def gives_nothing(folder):
    pass


def test_a_full_disk_while_a_checkpoint_is_written_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FseftError, match=r"checkpoint\.pt: the disk is full"):
        save_checkpoint(tmp_path / "checkpoint.pt", {"step": 1})
