"""Heads: rows from the model's classes, residual heads, and several heads in parallel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fseft.anatomy.vocabulary import match_classes
from fseft.learn.networks.heads import (
    ParallelHeads,
    ResidualHead,
    initialise_to_frequencies,
    new_head,
    receptive_field_radius,
)

CLASSES = ("liver", "kidney_left", "spleen")


@pytest.fixture
def features():
    return torch.randn((2, 5, 4, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def old():
    torch.manual_seed(1)
    return nn.Conv3d(5, len(CLASSES), 1)


def build_head(old, structures, activation="sigmoid", *, never=False, seed=0):
    matched = match_classes(structures, CLASSES)
    return new_head(
        old,
        structures,
        CLASSES,
        activation,
        matched,
        torch.Generator().manual_seed(seed),
        suppress_unmatched=never,
    )


def test_zero_shot_of_a_sigmoid_model_predicts_its_largest_positive_logit(old, features):
    logits = old(features)[:, [2, 0]]  # spleen, liver
    expected = torch.where(logits.amax(1) > 0, 1 + logits.argmax(1), 0)
    predicted = build_head(old, ["Spleen", "liver"], never=True)(features).argmax(1)
    assert torch.equal(predicted, expected)
    assert set(expected.unique().tolist()) == {0, 1, 2}


def test_the_background_row_of_a_softmax_model_is_copied(features):
    torch.manual_seed(2)
    old = nn.Conv3d(5, 1 + len(CLASSES), 1)
    head = build_head(old, ["spleen", "liver"], "softmax")
    assert torch.allclose(head(features), old(features)[:, [0, 3, 1]], atol=1e-6)


def test_zero_shot_never_predicts_structures_without_a_match(old, features):
    head = build_head(old, ["tumour", "liver", "cyst"], never=True)
    assert set(head(1000 * features).argmax(1).unique().tolist()) <= {0, 2}


def test_rows_without_a_match_start_with_a_low_probability_and_depend_on_the_seed(old, features):
    first, same, other = (build_head(old, ["tumour"], seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)
    assert (first(features).softmax(1)[:, 1] < 0.2).all()


def test_the_old_head_may_have_no_bias(features):
    old = nn.Conv3d(5, len(CLASSES), 1, bias=False)
    head = build_head(old, ["liver"])
    assert torch.allclose(head(features)[:, 1], old(features)[:, 0], atol=1e-6)


@pytest.mark.parametrize("classes", [3, 20])
def test_a_residual_head_classifies_the_changed_features(classes):
    head = ResidualHead(nn.Conv3d(8, classes, 1), 3, torch.Generator().manual_seed(0))
    nn.init.normal_(head.second.weight)
    x = torch.randn(2, 8, 5, 6, 7)
    torch.testing.assert_close(
        head(x), head.classifier(x + head.second(head.first(x).relu())), atol=1e-4, rtol=1e-4
    )


def test_parallel_heads_concatenate_logits_and_fuse_adjacent_heads():
    pointwise = [nn.Conv3d(8, classes, 1) for classes in (2, 3, 4)]
    residual = [
        ResidualHead(nn.Conv3d(8, classes, 1), 3, torch.Generator().manual_seed(0))
        for classes in (3, 2, 20)
    ]
    for head in residual:
        nn.init.normal_(head.second.weight)
    several = [*pointwise[:2], residual[0], pointwise[2], residual[1], residual[2]]
    x = torch.randn(2, 8, 5, 6, 7)
    heads = ParallelHeads(several)
    assert len(heads.heads) == 2  # more classes than features are another computation
    torch.testing.assert_close(
        heads(x), torch.cat([head(x) for head in several], dim=1), atol=1e-4, rtol=1e-4
    )


def test_heads_that_are_not_pointwise_or_lack_a_bias_are_not_fused():
    several = [nn.Conv3d(8, 2, 1), nn.Conv3d(8, 2, 3, padding=1), nn.Conv3d(8, 3, 1, bias=False)]
    x = torch.randn(2, 8, 5, 6, 7)
    heads = ParallelHeads(several)
    assert len(heads.heads) == 3
    torch.testing.assert_close(heads(x), torch.cat([head(x) for head in several], dim=1))


def test_the_receptive_field_radius_of_a_head():
    plain = nn.Conv3d(5, 2, 1)
    residual = [ResidualHead(plain, size, torch.Generator()) for size in (1, 3, 5)]
    assert [receptive_field_radius(head) for head in (plain, *residual)] == [0, 0, 2, 4]
    assert receptive_field_radius(ParallelHeads([plain, *residual])) == 4
    assert (
        receptive_field_radius(nn.Sequential(nn.Conv3d(5, 5, 3, dilation=2), nn.ReLU(), plain)) == 2
    )


def test_a_head_with_hooks_or_branches_is_not_fused():
    x = torch.randn(1, 8, 4, 4, 4)
    for add in (hook, branch):
        head = nn.Conv3d(8, 2, 1)
        add(head)
        torch.testing.assert_close(ParallelHeads([nn.Conv3d(8, 2, 1), head])(x)[:, 2:], head(x))


def hook(head):
    head.register_forward_hook(lambda _, __, output: 2 * output)


def branch(head):
    head.add_module("branch", nn.Conv3d(8, 2, 1))
    head.register_forward_pre_hook(
        lambda module, inputs: inputs[0] + module.branch(inputs[0]).mean()
    )


@pytest.mark.parametrize("residual", [False, True])
def test_new_rows_start_at_the_frequencies_and_known_rows_stay(residual):
    plain = torch.nn.Conv3d(4, 4, 1)
    head = ResidualHead(plain, 3, torch.Generator().manual_seed(0)) if residual else plain
    before = plain.bias.detach().clone()
    initialise_to_frequencies(head, [1, 3], [0.64, 0.16, 0.16, 0.04])
    odds = (plain.bias - plain.bias[0]).exp()
    assert odds[[1, 3]].tolist() == pytest.approx([1 / 2, 1 / 4])
    assert torch.equal(plain.bias[[0, 2]], before[[0, 2]])


def test_a_frozen_head_keeps_its_bias():
    head = torch.nn.Conv3d(4, 2, 1).requires_grad_(False)
    before = head.bias.clone()
    initialise_to_frequencies(head, [1], [0.9, 0.1])
    assert torch.equal(head.bias, before)
