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


class Scale(WeightDelta):
    """A factor for each slice of a weight along one dimension, one at the start: (1 + s) W.

    Args:
        weight: The base weight; only its shape is used.
        dim: The dimension, of outputs or of inputs; groups of a convolution share the factors.
        first: Slices before this one keep the factor one.
    """

    def __init__(self, weight: Tensor, dim: int, first: int = 0) -> None:
        super().__init__()
        self.dim, self.first = dim, first
        self.s = nn.Parameter(torch.zeros(weight.shape[dim] - first))

    def delta(self, weight: Tensor) -> Tensor:
        """The change of the scaled slices, zero elsewhere."""
        s = torch.nn.functional.pad(self.s, (self.first, 0))
        return weight * s.view([-1 if dim == self.dim else 1 for dim in range(weight.dim())])


class Shift(WeightDelta):
    """A summand for each entry of a bias, zero at the start."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros_like(bias))

    def delta(self, weight: Tensor) -> Tensor:  # noqa: ARG002
        """The summand."""
        return self.shift


def add_delta(module: nn.Module, delta: WeightDelta, tensor: str = "weight") -> None:
    """Let a module's weight be computed as base + delta; the base stays under `parametrizations.weight.original`."""
    parametrize.register_parametrization(module, tensor, delta)
