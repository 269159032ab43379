"""The moving average of the weights, which is steadier than any of the weights that it is made of."""

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

    Args:
        parameters: What is averaged; the average starts as they are.
        decay: Share that stays at each step, once there have been enough of them.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float) -> None:
        self._parameters = parameters
        self._decay = decay
        self.tensors = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the parameters after a step; the first ones are forgotten soon."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, parameter in zip(self.tensors, self._parameters, strict=True):
            average.lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def restore(self, tensors: Sequence[Tensor]) -> None:
        """Go on with what an earlier average was."""
        for average, tensor in zip(self.tensors, tensors, strict=True):
            average.copy_(distribute_like(tensor, average))

    @torch.no_grad()
    def copy_to(self) -> None:
        """Put the average in the place of the parameters."""
        for average, parameter in zip(self.tensors, self._parameters, strict=True):
            parameter.copy_(average)

    @contextmanager
    def average_parameters(self) -> Iterator[None]:
        """The average in the place of the parameters while the context lasts."""
        before = [parameter.detach().clone() for parameter in self._parameters]
        self.copy_to()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, tensor in zip(self._parameters, before, strict=True):
                    parameter.copy_(tensor)
