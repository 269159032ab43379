"""The solver finds the optimum of multinomial logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fseft.learn.adapters.lbfgs import L2_PENALTY, LBFGSProbe
from fseft.learn.training.voxel_features import VoxelSample

N_VOXELS, N_FEATURES, N_CLASSES = 500, 4, 3


def sample_voxels(*, weighted):
    """Draw voxels of two classes that overlap along the first feature."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(N_VOXELS, N_FEATURES)).astype(np.float32)
    labels = features[:, 0] + 0.5 * rng.normal(size=N_VOXELS) > 0.3
    weights = rng.uniform(0.5, 2, N_VOXELS) if weighted else np.ones(N_VOXELS)
    return VoxelSample(
        torch.from_numpy(features),
        torch.from_numpy(labels).long(),
        torch.from_numpy(weights.astype(np.float32)),
    )


def gradients(head, voxels):
    """Return the gradient of the penalised cross-entropy, from its formula, in double precision."""
    weight = head.weight.detach().flatten(1).double()
    bias = head.bias.detach().double()
    features = voxels.features.double()
    errors = (features @ weight.T + bias).softmax(1) - F.one_hot(voxels.labels, N_CLASSES)
    residual = voxels.weights[:, None] * errors / voxels.weights.sum()
    return (
        residual.T @ features + 2 * L2_PENALTY * weight,
        residual.sum(0) + 2 * L2_PENALTY * bias,
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_zero_at_the_solution(weighted):
    voxels = sample_voxels(weighted=weighted)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(N_FEATURES, N_CLASSES, 1))
    LBFGSProbe(network, learning_rate=1.0).fit_closed_form(voxels)
    for gradient in gradients(network[0], voxels):
        assert float(gradient.abs().max()) < 1e-4
