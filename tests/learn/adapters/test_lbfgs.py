"""The solver finds the optimum of multinomial logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fseft.learn.adapters.lbfgs import DECAY, LBFGSProbe
from fseft.learn.training.voxel_features import VoxelSample


@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_gone_at_the_solution(weighted):
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(500, 4)).astype(np.float32))
    labels = (
        features[:, 0] + 0.5 * torch.from_numpy(rng.normal(size=500).astype(np.float32)) > 0.3
    ).long()
    weights = (
        torch.from_numpy(rng.uniform(0.5, 2, 500).astype(np.float32))
        if weighted
        else torch.ones(500)
    )
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(4, 3, 1))
    LBFGSProbe(network, learning_rate=1.0).fit_closed_form(VoxelSample(features, labels, weights))
    weight, bias = network[0].weight.detach().flatten(1).double(), network[0].bias.detach().double()
    probabilities = (features.double() @ weight.T + bias).softmax(1)
    gradient_of_bias = 2 * DECAY * bias
    residual = weights[:, None] * (probabilities - nn.functional.one_hot(labels, 3)) / weights.sum()
    gradient = residual.T.double() @ features.double() + 2 * DECAY * weight
    assert float(gradient.abs().max()) < 1e-4
    assert float((residual.sum(0) + gradient_of_bias).abs().max()) < 1e-4
