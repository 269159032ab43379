"""Methods that hold out cases, validate on them and drop additions, also in resumed runs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fseft.adaptation.feature_training import _windows
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.checkpoints import load_checkpoint, save_checkpoint
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.adapter_layers import LowRank, add_delta
from fseft.learn.networks.heads import ResidualHead, receptive_field_radius
from fseft.learn.training.losses import segmentation_loss
from fseft.registry import registry
from fseft.schemas import Run
from fseft.volume.cache import open_case, write_case
from fseft.workspace import read_document
from tests.sample_data import adapt, equal_tensors, load_adapter

# With a patch as large as the scans, the sum of the input identifies the case.
SETTINGS = ("augment=false", "epochs=5", "checkpoint_seconds=0", "learning_rate=0.01")
AUDITS = 3


class Searching(AdaptedNetwork):
    """Holds out one case after the other, and keeps its first addition after the last audit."""

    def held_out_cases(self, epoch, cases):  # noqa: ARG002
        return (self.audits % cases,) if self.audits < AUDITS else ()

    def on_epoch_validation(self, epoch, cases, crops_of):  # noqa: ARG002
        images, labels = crops_of(self.audits % cases, 1)
        self.seen.append(
            ("audit", self.network.training, torch.is_grad_enabled(), int(labels.max()))
        )
        self.network(images)
        self.extra_state["toy.audits"] += 1
        if self.audits == AUDITS:
            self.prune(self.prunable[1:])

    def finish(self):
        self.seen.append("finish")

    def notes(self):
        return (f"{self.audits} audits",)

    @property
    def audits(self):
        return int(self.extra_state["toy.audits"])


class TinyNetwork:
    """A low-rank change of each convolution of the encoder."""

    def __init__(self, seen):
        self.seen = seen

    def apply(self, architecture, network, *, generator):
        targets = [
            t
            for t in architecture.targets(network)
            if (t.part, t.role) == ("encoder", "conv.spatial")
        ]
        changes = [add_delta(t, LowRank(t.module.weight, 2, 1.0, generator)) for t in targets]
        adapted = Searching.freeze_except(changes, architecture, network, learning_rate=0.01)
        adapted.prunable, adapted.extra_state, adapted.seen = (
            tuple(changes),
            {"toy.audits": torch.tensor(0)},
            self.seen,
        )
        network.register_forward_pre_hook(
            lambda _, inputs: self.seen.append(float(inputs[0].double().sum()))
        )
        return adapted


@pytest.fixture
def seen(monkeypatch):
    """The inputs that a toy method in place of LoRA saw."""
    log = []
    original = registry().create
    monkeypatch.setattr(
        registry(),
        "create",
        lambda kind, *rest: TinyNetwork(log) if kind == "method" else original(kind, *rest),
    )
    return log


@pytest.fixture
def run(request_for, workspace, seen, tmp_path):
    def go(name="run", callbacks=None):
        request = request_for(
            "lora", settings=SETTINGS, k=3, decoder="frozen", output=tmp_path / name
        )
        return adapt(request, workspace, callbacks)

    return go


def rounds(seen):
    """Return each validation image with the training images since the last one, and the rest."""
    found, trained = [], []
    items = iter(seen[: seen.index("finish")])  # then the adapter is scored on its training cases
    for item in items:
        if isinstance(item, tuple):
            found.append((next(items), trained))
            trained = []
        else:
            trained.append(item)
    return found, trained


def test_steps_never_draw_the_case_that_is_held_out(run, seen):
    run()
    audits, rest = rounds(seen)
    assert len(audits) == 5  # after each epoch
    for image, trained in audits[:AUDITS]:
        assert len(trained) == 3  # an epoch is as long as ever
        assert image not in trained
        assert len(set(trained)) == 2
    assert len({image for image, _ in audits[:AUDITS]}) == 3
    assert [len(set(trained)) for _, trained in audits[AUDITS:]] == [3, 3]
    assert rest == []


def test_an_audit_sees_structures_and_neither_gradients_nor_dropout(run, seen):
    run()
    told = {item for item in seen if isinstance(item, tuple)}
    assert told == {("audit", False, False, 2)}
    assert "finish" in seen


def test_dropped_additions_are_neither_in_the_file_nor_in_the_loaded_network(run, seen, workspace):
    result = run()
    tensors = load_file(result.adapter)
    assert sum(name.endswith(".a") for name in tensors) == 1
    head = tensors["head.weight"].numel() + tensors["head.bias"].numel()
    assert result.run.trained_parameters == head + sum(
        t.numel() for n, t in tensors.items() if "parametriz" in n
    )
    network, _ = load_adapter(result.adapter, workspace)
    names = {name for name, _ in network.named_parameters()}
    assert not any("parametriz" in name for name in names)


def test_the_notes_of_the_method_are_in_the_run(run, seen):
    result = run()
    assert read_document(result.folder / "run.json", Run).notes == result.run.notes == ("5 audits",)


@pytest.mark.parametrize(
    "epoch", [2, *(pytest.param(epoch, marks=pytest.mark.full) for epoch in (1, 3, 4))]
)
def test_an_interrupted_run_resumes_to_the_same_adapter(epoch, run, seen):
    class CutOff(Callbacks):
        def on_epoch_end(self, ended):
            if ended.number == epoch + 1:
                raise FseftError("cut off")

    whole = run("whole")
    with pytest.raises(FseftError, match="cut off"):
        run("cut", CutOff())
    resumed = run("cut")
    assert resumed.resumed_from == epoch
    assert equal_tensors(load_file(resumed.adapter), load_file(whole.adapter))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_windows_of_features_give_the_logits_of_the_whole_crop(kernel_size, tmp_path):
    """Where the loss looks, a head sees all that it would see in the crop."""
    shape = (30, 40, 33)
    features = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    labels = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)  # a label is its position
    write_case(tmp_path, "a", features, labels, {}, classes=[0, 20_000])
    generator = torch.Generator().manual_seed(0)
    head = ResidualHead(torch.nn.Conv3d(2, 3, 1), kernel_size, generator)
    torch.nn.init.normal_(head.second.weight, generator=generator)
    whole = head(torch.from_numpy(features)[None])[0].detach()
    job = SimpleNamespace(request=SimpleNamespace(seed=0), crops_per_step=6)
    for step in range(3):
        windows, parts, insides, _ = _windows(
            job, [open_case(tmp_path, "a")], step, receptive_field_radius(head)
        )
        for logits, part, inside in zip(
            head(torch.from_numpy(windows)).detach(), parts, insides, strict=True
        ):
            seen = logits[(slice(None), *inside)]
            assert part.shape == seen.shape[1:] == (24, 24, 24)
            place = tuple(
                slice(first, first + 24) for first in np.unravel_index(part[0, 0, 0], shape)
            )
            torch.testing.assert_close(seen, whole[(slice(None), *place)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "loss"), [("spatial-adapter", "dice_ce"), ("linear-probe", "dice")]
)
def test_a_training_on_features_names_its_loss_and_gives_it_the_progress(
    method, loss, request_for, workspace, tmp_path, monkeypatch
):
    progress, names = [], []

    def record(*arguments, **options):
        progress.append(options.get("progress"))
        return segmentation_loss(*arguments, **options)

    class Former(Callbacks):
        """Interrupts a run after its first epoch, with the loss that former versions stated."""

        def on_checkpoint_saved(self, path):
            state = load_checkpoint(path)
            names.append(state["loss"])
            save_checkpoint(path, {**state, "loss": "dice_wce"})
            raise FseftError("cut off")

    monkeypatch.setattr("fseft.adaptation.feature_training.segmentation_loss", record)
    settings = ("epochs=3", "feature_passes=1", "checkpoint_seconds=0")
    request = request_for(method, settings=settings, k=1, output=tmp_path / "whole")
    whole = adapt(request, workspace)
    assert progress == pytest.approx([0, 1 / 3, 2 / 3])
    request = replace(request, output=tmp_path / "cut")
    with pytest.raises(FseftError, match="cut off"):
        adapt(request, workspace, Former())
    assert names == [loss]
    assert equal_tensors(load_file(adapt(request, workspace).adapter), load_file(whole.adapter))


@pytest.mark.parametrize(
    ("method", "loss"),
    [("spatial-adapter", "dice_ce"), ("linear-probe", "dice"), ("ssf", "dice_wce")],
)
def test_the_loss_by_default_depends_on_what_a_method_trains_on(
    method, loss, request_for, workspace, tmp_path
):
    def trained(name, *settings):
        common = {"decoder": "frozen", "output": tmp_path / name}
        settings = ("epochs=1", "feature_passes=1", "crops_per_step=1", *settings)
        return load_file(
            adapt(request_for(method, settings=settings, k=1, **common), workspace).adapter
        )

    losses = {kind: trained(kind, f"loss={kind}") for kind in ("dice", "dice_ce", "dice_wce")}
    assert not equal_tensors(losses["dice"], losses["dice_ce"])
    assert not equal_tensors(losses["dice"], losses["dice_wce"])
    assert equal_tensors(trained("default"), losses[loss])
