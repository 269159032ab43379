"""A pointwise head found by an exact solver instead of by steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.training.losses import Predictions, segmentation_loss
from fseft.learn.training.voxel_features import voxel_logits

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.learn.training.voxel_features import VoxelSample

ITERATIONS = 200
DECAY = 1e-4  # of the squared weights: separable classes would have no optimum


class LBFGSProbe(AdaptedNetwork):
    """A linear probe as multinomial logistic regression, by L-BFGS with a strong Wolfe line search."""

    def fit_closed_form(self, voxels: VoxelSample) -> float:
        """The optimum on these voxels; the network's head is left there."""
        parameters = [parameter for _, parameter in self.trainable_parameters()]
        (name,) = {name.rpartition(".")[0] for name, _ in self.trainable_parameters()}
        head = self.network.get_submodule(name)
        optimizer = torch.optim.LBFGS(
            parameters, max_iter=ITERATIONS, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = voxel_logits(head, voxels.features)
            entropy = segmentation_loss(
                logits, voxels.labels, Predictions.cross_entropy, weights=voxels.weights
            )
            total: Tensor = (
                entropy
                + DECAY * torch.stack([parameter.square().sum() for parameter in parameters]).sum()
            )
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        return float(loss().detach())
