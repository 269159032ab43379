"""Hooks of the training loop, for methods that act during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    import torch
    from torch import Tensor

    from fseft.learn.training.progress import Epoch
    from fseft.learn.training.voxel_features import VoxelSample


class TrainingHooks:
    """Hooks of `AdaptedNetwork` that a method may override; each does nothing by default.

    A training that is interrupted and resumed must end with the same adapter. Decisions may
    therefore depend on the network's tensors, `AdaptedNetwork.extra_state`, `training_state`, the
    step and the epoch only.

    Examples:
        A penalty on all trained parameters:

        ```python
        class Penalised(AdaptedNetwork):
            def regularizer(self):
                return 1e-3 * sum(p.abs().sum() for _, p in self.trainable_parameters())
        ```
    """

    def calibrate(self, batches: Iterator[Tensor]) -> None:
        """Initialises from data, before the first step.

        Args:
            batches: Images without labels, float32 (B, C, i, j, k), one batch per training case.
        """

    def fit_closed_form(self, voxels: VoxelSample) -> float | None:  # noqa: ARG002
        """Fits the trained parameters with a solver instead of optimiser steps, on cached features.

        Args:
            voxels: Features and labels of sampled voxels of the training cases.

        Returns:
            The final loss, or None to train by optimiser steps.
        """
        return None

    def regularizer(self) -> Tensor | None:
        """Returns a scalar tensor that is added to the loss of a step, or None."""
        return None

    def on_optimizer_step(self, step: int, total: int, optimizer: torch.optim.Optimizer) -> None:
        """Acts after an optimiser step, for example with a proximal step or a rank schedule.

        Args:
            step: Number of steps so far, from 1.
            total: Planned number of steps; a time budget or early stopping may end training before.
            optimizer: Its parameter groups hold the current learning rate as `lr`.
        """

    def training_state(self) -> dict[str, Tensor]:
        """Returns tensors by name that a checkpoint needs in addition to `state_dict`.

        Tensors may have any shape; a resumed run receives them in `load_training_state`.
        """
        return {}

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the tensors that `training_state` returned."""

    def held_out_cases(self, epoch: int, cases: int) -> Collection[int]:  # noqa: ARG002
        """Returns the indices of training cases to exclude from the steps of an epoch.

        Called before each step on crops; the result may depend on earlier validations.

        Args:
            epoch: Number of the epoch, from 1.
            cases: k, the number of training cases; at least one must remain.
        """
        return ()

    def on_epoch_validation(
        self, epoch: Epoch, cases: int, crops_of: Callable[[int, int], tuple[Tensor, Tensor]]
    ) -> None:
        """Validates after each epoch on crops, in evaluation mode and without gradients.

        Args:
            epoch: The finished epoch.
            cases: k, the number of training cases.
            crops_of: `crops_of(case, count)` returns images, float32 (count, C, i, j, k), and
                labels, int64 (count, i, j, k) with 0 for background, and -1 for voxels that are
                not annotated: crops around structures, not augmented, different ones after each
                epoch.
        """

    def plateau_losses(self, losses: Sequence[float]) -> Sequence[float]:
        """Returns the epoch losses for early stopping; none while the method still searches.

        Args:
            losses: Mean training loss of each epoch so far.
        """
        return losses

    def finish(self) -> None:
        """Takes final decisions after the last step, before the adapter is written."""

    def notes(self) -> tuple[str, ...]:
        """Returns lines about the result, which are printed and stored in `run.json`."""
        return ()
