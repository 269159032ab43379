"""Weight deltas: the few layers that methods share. They act on the weight, so that merging is exact."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class WeightDelta(nn.Module):
    """A change of a weight that can be switched off. Subclasses write `delta`."""

    enabled: bool = True

    def delta(self, weight: Tensor) -> Tensor:
        """The change, of the weight's shape."""
        raise NotImplementedError

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight; the very tensor itself while switched off."""
        return weight + self.delta(weight) if self.enabled else weight


class LowRank(WeightDelta):
    """LoRA (Hu et al. 2021, eq. 3): W + (alpha / r) B A, with the weight seen as a matrix.

    A convolution's weight (out, in/groups, i, j, k) is seen as (out, in/groups * i * j * k), a transposed
    convolution's (in, out/groups, i, j, k) as (in, out/groups * i * j * k). B starts at zero.

    Args:
        weight: The base weight; only its shape is used.
        rank: r.
        scale: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023).
        generator: Draws A.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.a = nn.Parameter(torch.randn(rank, columns, generator=generator) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))
        self.scale = scale

    def delta(self, weight: Tensor) -> Tensor:
        """The product, in the weight's shape."""
        return (self.scale * self.b @ self.a).view_as(weight)


def add_delta(module: nn.Module, delta: WeightDelta) -> None:
    """Let a module's weight be computed as base + delta; the base stays under `parametrizations.weight.original`."""
    parametrize.register_parametrization(module, "weight", delta)
