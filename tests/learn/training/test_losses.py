"""Losses: their range, weights of voxels, and partial labels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pydantic import Field
from torch.nn import functional as F

from fseft.errors import FseftError
from fseft.learn.training import components
from fseft.learn.training.losses import (
    Predictions,
    load_loss,
    masked_losses,
    segmentation_loss,
    structure_masks,
)
from fseft.plugin import Config, LossSpec, hookimpl
from fseft.registration import Plugin
from fseft.registry import Registry


@pytest.fixture
def labels():
    """Labels (2, 12, 12, 12) of two structures."""
    labels = torch.zeros((2, 12, 12, 12), dtype=torch.long)
    labels[:, 2:8, 2:8, 2:8] = 1
    labels[:, 9:, 9:, 9:] = 2
    return labels


def loss_of(logits, labels, name):
    return segmentation_loss(logits, labels, load_loss(name))


def sure(labels):
    """Logits that predict the labels with certainty."""
    return 100.0 * F.one_hot(labels, 3).movedim(-1, 1)


def test_a_perfect_prediction_costs_nothing(labels):
    for name in ("dice", "dice_ce", "dice_wce"):
        loss = loss_of(sure(labels), labels, name)
        assert loss == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ["dice", "dice_ce", "dice_wce"])
def test_a_sample_says_nothing_about_structures_that_it_does_not_annotate(labels, name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 12, 12, 12), generator=generator, requires_grad=True)
    annotated = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    loss = segmentation_loss(logits, labels, load_loss(name), annotated=annotated)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.flatten(2).any(2)[:, 1:].equal(annotated > 0)
    relabelled = labels.clone()
    relabelled[0][labels[0] == 2] = 0
    assert loss == segmentation_loss(logits, relabelled, load_loss(name), annotated=annotated)


def test_the_worst_prediction_costs_one(labels):
    assert loss_of(sure((labels + 1) % 3), labels, "dice") == pytest.approx(1, abs=0.05)


def test_cross_entropy_comes_on_top_of_dice(labels):
    logits = torch.randn((2, 3, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    dice = loss_of(logits, labels, "dice")
    both = loss_of(logits, labels, "dice_ce")
    cross_entropy = F.cross_entropy(logits, labels).item()
    assert both - dice == pytest.approx(cross_entropy, abs=1e-5)
    assert both > dice


def test_weighted_cross_entropy_counts_classes_by_the_root_of_their_frequency(labels):
    logits = torch.randn((2, 3, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    class_weights = labels.flatten().bincount().div(labels.numel()).rsqrt()
    expected = F.cross_entropy(logits, labels, weight=class_weights)
    reference = structure_masks(labels, 2)
    pooled = Predictions(logits, reference, labels, pooled=True)
    torch.testing.assert_close(pooled.weighted_cross_entropy(), expected.view(1, 1))
    of_cases = Predictions(logits, reference, labels).weighted_cross_entropy()
    alone = Predictions(logits[1:], reference[1:], labels[1:], pooled=True)
    torch.testing.assert_close(of_cases[1:], alone.weighted_cross_entropy())


def test_weighted_cross_entropy_of_independent_structures_balances_each(labels):
    logits = torch.randn((2, 2, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    reference = structure_masks(labels, 2)
    found = Predictions(logits, reference).weighted_cross_entropy()
    inside = reference[0, 1].mean()
    weights = torch.where(reference[0, 1] > 0, inside.rsqrt(), (1 - inside).rsqrt())
    expected = F.binary_cross_entropy_with_logits(
        logits[0, 1], reference[0, 1], weight=weights, reduction="sum"
    )
    torch.testing.assert_close(found[0, 1], expected / weights.sum())


def test_the_default_loss_ends_as_dice(labels):
    logits = torch.randn((2, 3, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    wce = load_loss("dice_wce")
    end = segmentation_loss(logits, labels, wce, progress=1.0)
    assert end == pytest.approx(2 * loss_of(logits, labels, "dice").item())
    assert loss_of(logits, labels, "dice_wce") > loss_of(logits, labels, "dice")


def test_dice_is_counted_over_the_batch_with_a_linear_denominator():
    shape = (2, 1, 1, 1, 2)
    probabilities = torch.tensor([0.5, 1.0, 0.0, 1.0]).view(shape)
    reference = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(shape)
    overlap, total = 1.5, 2.5 + 2
    expected = (2 * overlap + 1) / (total + 1)
    predictions = Predictions(probabilities.logit(), reference, pooled=True)
    assert predictions.dice().tolist() == [[pytest.approx(expected)]]


def test_a_class_absent_from_labels_and_prediction_costs_nothing(labels):
    absent = torch.full((2, 1, 12, 12, 12), -100.0)
    logits = torch.cat([sure(labels), absent], dim=1)
    loss = loss_of(logits, labels, "dice")
    assert loss == pytest.approx(0, abs=1e-5)


def test_half_precision_logits_are_summed_in_full_precision(labels):
    logits = torch.randn((2, 3, 12, 12, 12), generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = loss_of(logits, labels, "dice")
    assert loss.dtype == torch.float32
    assert loss == loss_of(logits.float(), labels, "dice")


@pytest.fixture
def multilabel(labels):
    return F.one_hot(labels, 3).movedim(-1, 1)[:, 1:].float()


def masked_loss(logits, reference, annotated):
    of_cases = masked_losses(logits, reference, annotated, load_loss("dice_ce"))
    return of_cases.sum() / annotated.sum().clamp(min=1)


def test_a_class_that_is_not_annotated_has_no_gradient_at_all(multilabel):
    logits = torch.randn(
        multilabel.shape, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    masked_loss(logits, multilabel, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).backward()
    assert (logits.grad[0, 1] == 0).all()
    assert (logits.grad[1, 0] == 0).all()
    assert (logits.grad[0, 0] != 0).any()
    assert (logits.grad[1, 1] != 0).any()


def test_the_masked_loss_is_the_mean_over_what_is_annotated(multilabel):
    logits = torch.randn(multilabel.shape, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for annotated in torch.eye(4):
        total += masked_loss(logits, multilabel, annotated.view(2, 2)).item()
    everything = masked_loss(logits, multilabel, torch.ones(2, 2))
    assert everything == pytest.approx(total / 4, abs=1e-6)
    nothing = masked_loss(logits, multilabel, torch.zeros(2, 2))
    assert nothing == 0


def test_the_masked_loss_of_a_perfect_prediction_is_nothing(multilabel):
    logits = 200 * multilabel - 100
    annotated = torch.ones(2, 2)
    perfect = masked_loss(logits, multilabel, annotated)
    assert perfect == pytest.approx(0, abs=1e-5)
    worst = masked_loss(-logits, multilabel, annotated)
    assert worst > 10


class TverskyConfig(Config):
    """Settings of the loss."""

    alpha: float = Field(default=0.3, description="weight of false alarms")


def tversky_loss(predictions, *, alpha):
    """A loss of a plugin, with a setting."""
    probabilities = predictions.probabilities
    reference = predictions.reference
    overlap = predictions.sum(probabilities * reference)
    missed = predictions.sum((1 - probabilities) * reference)
    false = predictions.sum(probabilities * (1 - reference))
    total = overlap + (1 - alpha) * missed + alpha * false
    return 1 - (overlap + 1) / (total + 1)


def test_a_plugin_adds_a_loss_for_all_kinds_of_labels(labels, multilabel, monkeypatch):
    spec = LossSpec(name="tversky", factory=f"{__name__}:tversky_loss", config=TverskyConfig)
    hooks = SimpleNamespace()
    hooks.fseft_losses = hookimpl(lambda: [spec], specname="fseft_losses")
    installed = Registry([Plugin("mine", "mine", "1", hooks)])
    monkeypatch.setattr(components, "registry", lambda: installed)
    assert loss_of(sure(labels), labels, "tversky") == pytest.approx(0, abs=1e-5)
    voxels, of_voxels = sure(labels).movedim(1, -1).flatten(0, 3), labels.flatten()
    weights = torch.ones(len(of_voxels))
    weighted = segmentation_loss(voxels, of_voxels, load_loss("tversky"), weights=weights)
    assert weighted == pytest.approx(0, abs=1e-5)
    annotated = torch.ones(2, 2)
    everywhere = torch.zeros_like(sure(labels))
    everywhere[:, 1] = 100
    nowhere = torch.zeros_like(labels)
    tolerant, strict = (
        segmentation_loss(everywhere, nowhere, load_loss("tversky", {"alpha": alpha}))
        for alpha in (0.0, 1.0)
    )
    assert tolerant < strict
    partial = masked_losses(100 * multilabel - 50, multilabel, annotated, load_loss("tversky"))
    assert partial.tolist() == pytest.approx([0, 0], abs=1e-5)


def test_the_cross_entropy_can_be_weighted(labels):
    logits = torch.randn(sure(labels).shape, generator=torch.Generator().manual_seed(0))
    dice, both = (
        segmentation_loss(logits, labels, load_loss("dice_ce", {"ce_weight": weight}))
        for weight in (0.0, 1.0)
    )
    assert dice == pytest.approx(loss_of(logits, labels, "dice").item())
    assert both == pytest.approx(loss_of(logits, labels, "dice_ce").item())


def test_names_are_checked():
    with pytest.raises(FseftError, match=r"unknown loss 'dice_cee'.*dice_ce"):
        load_loss("dice_cee")
