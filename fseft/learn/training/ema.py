"""Exponential moving average of the trained parameters."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fseft.learn.training.distributed import distribute_like

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


class ExponentialMovingAverage:
    """Exponential moving average of parameters (Tarvainen and Valpola 2017, arXiv:1703.01780).

    Unlike `torch.optim.swa_utils.AveragedModel`, it copies the trained parameters only, also where
    they are sharded, and its decay increases over the first steps.

    Args:
        parameters: The parameters, whose current values start the average.
        decay: Weight of the average at each step, once there have been enough steps.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.tensors = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Updates the average after an optimizer step.

        Args:
            step: Number of steps so far; the decay is min(decay, (1 + step) / (10 + step)).
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, parameter in zip(self.tensors, self._parameters, strict=True):
            # lerp moves the average towards the parameter.
            average.lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def restore(self, tensors: Sequence[Tensor]) -> None:
        """Resumes with the tensors of an earlier average.

        Args:
            tensors: One for each parameter, in their order and of their unsharded shapes.
        """
        for average, tensor in zip(self.tensors, tensors, strict=True):
            average.copy_(distribute_like(tensor, average))

    @torch.no_grad()
    def copy_to(self) -> None:
        """Replaces the values of the parameters by the average."""
        for average, parameter in zip(self.tensors, self._parameters, strict=True):
            parameter.copy_(average)

    @contextmanager
    def average_parameters(self) -> Iterator[None]:
        """Replaces the values of the parameters by the average within a context."""
        trained = [parameter.detach().clone() for parameter in self._parameters]
        self.copy_to()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, tensor in zip(self._parameters, trained, strict=True):
                    parameter.copy_(tensor)
