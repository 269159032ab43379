"""Sampled voxels stand for all: the loss on them is that of the whole crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fseft.learn.training.losses import load_loss, segmentation_loss
from fseft.learn.training.voxel_features import concatenate, sample_voxels, voxel_logits

FEATURES = 5


@pytest.fixture
def crop():
    rng = np.random.default_rng(0)
    labels = np.zeros((16, 18, 20), np.uint8)
    labels[3:11, 4:12, 5:13] = 1
    labels[12:14, 13:15, 14:16] = 2
    features = rng.normal(size=(FEATURES, *labels.shape))
    return features.astype(np.float16), labels


@pytest.fixture
def head():
    torch.manual_seed(0)
    return nn.Conv3d(FEATURES, 3, 1)


def dense_loss(head, features, labels, kind):
    logits = head(torch.from_numpy(features.astype(np.float32))[None])
    reference = torch.from_numpy(labels.astype(np.int64))[None]
    return segmentation_loss(logits, reference, load_loss(kind))


def loss(head, voxels, kind):
    logits = voxel_logits(head, voxels.features)
    return segmentation_loss(logits, voxels.labels, load_loss(kind), weights=voxels.weights)


@pytest.mark.parametrize("kind", ["dice", "dice_ce"])
def test_all_voxels_have_the_loss_of_the_crop(crop, head, kind):
    voxels = sample_voxels(*crop, 10 * crop[1].size, np.random.default_rng(0))
    assert len(voxels.labels) == crop[1].size
    torch.testing.assert_close(
        loss(head, voxels, kind), dense_loss(head, *crop, kind), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["dice", "dice_ce"])
def test_few_voxels_have_about_the_loss_of_the_crop(crop, head, kind):
    losses = [
        float(loss(head, sample_voxels(*crop, 600, np.random.default_rng(n)), kind).detach())
        for n in range(30)
    ]
    assert np.mean(losses) == pytest.approx(float(dense_loss(head, *crop, kind).detach()), rel=0.02)


def test_small_structures_and_borders_have_their_share(crop):
    voxels = sample_voxels(*crop, 600, np.random.default_rng(0))
    counts = torch.bincount(voxels.labels)
    assert counts[2] == 8  # all of them
    assert counts[1] == 2 * 120  # of five strata: half at the border, half inside
    assert float(voxels.weights.sum()) == pytest.approx(crop[1].size, rel=1e-5)


def test_batches_are_drawn_from_all_crops_the_same_way_for_the_same_seed(crop):
    generators = [np.random.default_rng(seed) for seed in range(3)]
    voxels = concatenate([sample_voxels(*crop, 600, rng) for rng in generators])
    first = voxels.batch(100, torch.Generator().manual_seed(7))
    second = voxels.batch(100, torch.Generator().manual_seed(7))
    assert torch.equal(first.features, second.features)
    assert len(first.labels) == 100
    assert voxels.batch(10**6, torch.Generator()) is voxels
