"""A linear probe that is fitted by L-BFGS instead of optimiser steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.training.losses import Predictions, segmentation_loss
from fseft.learn.training.voxel_features import voxel_logits

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.learn.training.voxel_features import VoxelSample

MAX_ITERATIONS = 200
L2_PENALTY = 1e-4
"""Weight of the squared parameters: without it, separable classes have no finite optimum."""


class LBFGSProbe(AdaptedNetwork):
    """Multinomial logistic regression on frozen features, by L-BFGS with strong Wolfe search."""

    def fit_closed_form(self, voxels: VoxelSample) -> float:
        """Fits the head of the network to sampled voxels.

        Args:
            voxels: Features (n, F), labels (n,) and weights (n,) of the sampled voxels.

        Returns:
            The penalised cross-entropy after the last iteration.
        """
        names, parameters = zip(*self.trainable_parameters(), strict=True)
        (head_name,) = {name.rpartition(".")[0] for name in names}
        head = self.network.get_submodule(head_name)
        optimizer = torch.optim.LBFGS(
            parameters, max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = voxel_logits(head, voxels.features)
            entropy = segmentation_loss(
                logits,
                voxels.labels,
                Predictions.cross_entropy,
                weights=voxels.weights,
                annotated=voxels.annotated,
                members=voxels.members,
            )
            squares = torch.stack([parameter.square().sum() for parameter in parameters])
            loss: Tensor = entropy + L2_PENALTY * squares.sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return float(closure().detach())
