"""The few layers that methods share: changes of a weight, which merge exactly, and branches beside a module."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fseft.learn.networks.adapter_module import AdapterModule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fseft.learn.networks.roles import Target


class WeightDelta(AdapterModule):
    """A change of a weight. Subclasses write `delta`."""

    def delta(self, weight: Tensor) -> Tensor:
        """The change, of the weight's shape."""
        raise NotImplementedError

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight; the very tensor itself while switched off."""
        return weight + self.delta(weight) if self.enabled else weight


def full_rank(weight: Tensor) -> int:
    """The largest rank that a change of this weight can have."""
    return min(weight.shape[0], weight[0].numel())


class LowRank(WeightDelta):
    """LoRA (Hu et al. 2021, eq. 3): W + (alpha / r) B A, with the weight seen as a matrix.

    A convolution's weight (out, in/groups, i, j, k) is seen as (out, in/groups * i * j * k), a transposed
    convolution's (in, out/groups, i, j, k) as (in, out/groups * i * j * k). B starts at zero. A matrix with fewer rows
    or columns than r has its own full rank, which is all that a larger r could give.

    Args:
        weight: The base weight; only its shape is used.
        rank: r.
        scale: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Kalajdzievski 2023).
        generator: Draws A.
    """

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, full_rank(weight))
        self.a = nn.Parameter(torch.randn(rank, columns, generator=generator) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))
        self.scale = scale

    def delta(self, weight: Tensor) -> Tensor:
        """The product, in the weight's shape."""
        return (self.scale * self.b @ self.a).view_as(weight)


class PrincipalLowRank(LowRank):
    """PiSSA (Meng et al. 2024, arXiv:2404.02948, eq. 2 to 4): B A starts as the largest singular values of the weight.

    The paper takes them out of the base weight. Here the weight stays as it is, and the start is taken off the change,
    W + s (B A - B0 A0): the same function, with the base at hand. Singular vectors depend on the machine, so A0 and B0
    are buffers to be saved.

    Args:
        weight: The base weight.
        rank: r.
        scale: s.
        generator: As for `LowRank`; what it draws is replaced.
    """

    a0: Tensor
    b0: Tensor

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__(weight, rank, scale, generator)
        rank = len(self.a)
        u, s, v = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
        root = (s[:rank] / scale).sqrt()
        for parameter, start in ((self.a, root[:, None] * v[:rank]), (self.b, u[:, :rank] * root)):
            parameter.data.copy_(start)
        self.register_buffer("a0", self.a.detach().clone())
        self.register_buffer("b0", self.b.detach().clone())

    def delta(self, weight: Tensor) -> Tensor:
        """The product less its start, in the weight's shape."""
        return super().delta(weight) - (self.scale * self.b0 @ self.a0).view_as(weight)


class FusedQKVDelta(WeightDelta):
    """A change of its own for each of several matrices that lie upon each other: queries, keys and values.

    Args:
        parts: Of as many equal blocks of rows, in order.
    """

    def __init__(self, parts: Iterable[WeightDelta]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def delta(self, weight: Tensor) -> Tensor:
        """The changes, in the weight's shape."""
        blocks = zip(self.parts, weight.chunk(len(self.parts)), strict=True)
        return torch.cat([part.delta(block) for part, block in blocks])  # type: ignore[operator]


class Magnitude(WeightDelta):
    """DoRA (Liu et al. 2024, arXiv:2402.09353, eq. 5): m V / |V|, with a magnitude for each output channel.

    V is what the deltas before this one give; m starts as |W|, so that the start changes nothing. The norm counts as a
    constant in the gradient (sec. 4.3). Groups of a transposed convolution share the magnitudes.

    Args:
        weight: The base weight.
        dim: The dimension of the outputs.
    """

    def __init__(self, weight: Tensor, dim: int) -> None:
        super().__init__()
        self.others = [other for other in range(weight.dim()) if other != dim]
        self.m = nn.Parameter(self._norm(weight))

    def delta(self, weight: Tensor) -> Tensor:
        """The change that gives each output its magnitude."""
        return weight * (self.m / self._norm(weight) - 1)

    def _norm(self, weight: Tensor) -> Tensor:
        return weight.detach().pow(2).sum(self.others, keepdim=True).sqrt().clamp_min(1e-12)


class ChannelScale(WeightDelta):
    """A factor for each slice of a weight, or entry of a bias, along one dimension, one at the start: (1 + s) W.

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


class Hypercomplex(WeightDelta):
    """A linear map of a layer's outputs, as a change of its weight or bias: P W.

    P is a sum of n Kronecker products A_i x B_i (Zhang et al. 2021, arXiv:2102.08597, eq. 3), of n^3 + width^2 / n
    parameters.

    Args:
        width: Outputs of the layer.
        terms: n.
        generator: Draws A, and B where it does not start at zero.
        residual: W + P W with B zero at the start, instead of P W.
    """

    def __init__(
        self, width: int, terms: int, generator: torch.Generator, *, residual: bool
    ) -> None:
        super().__init__()
        side = width // terms
        b = (6 / side) ** 0.5 * (2 * torch.rand(terms, side, side, generator=generator) - 1)
        self.a = nn.Parameter(0.01 * torch.randn(terms, terms, terms, generator=generator))
        self.b = nn.Parameter(torch.zeros_like(b) if residual else b)
        self.residual = residual

    def delta(self, weight: Tensor) -> Tensor:
        """The mixed weight or bias, less itself where it is replaced."""
        products = torch.einsum("nij,nkl->ikjl", self.a, self.b)
        mixed = products.reshape(len(weight), len(weight)) @ weight
        return mixed if self.residual else mixed - weight


class CentreTapDelta(WeightDelta):
    """A pointwise convolution beside a spatial one, as a change of the kernel's middle; zero at the start.

    Residual adapters in parallel (Rebuffi et al. 2018, arXiv:1803.10082, eq. 5). Equal to the branch that they are
    drawn as where the kernel is odd and padded by half its size, whatever the stride.

    Args:
        weight: The base weight (out, in/groups, i, j, k); only its shape is used.
    """

    @staticmethod
    def fits(convolution: nn.Conv3d) -> bool:
        """Whether the middle of the kernel meets the voxel that a pointwise convolution would."""
        if isinstance(convolution.padding, str):
            return convolution.padding == "same" and all(
                side % 2 for side in convolution.kernel_size
            )
        geometry = zip(
            convolution.kernel_size, convolution.dilation, convolution.padding, strict=True
        )
        return all(
            side % 2 and padding == dilation * (side // 2) for side, dilation, padding in geometry
        )

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(weight.shape[:2]))

    def delta(self, weight: Tensor) -> Tensor:
        """The change, zero but in the middle."""
        around = [side // 2 for side in reversed(weight.shape[2:]) for _ in (0, 1)]
        return torch.nn.functional.pad(self.point[..., None, None, None], around)


class BiasShift(WeightDelta):
    """A summand for each entry of a bias, zero at the start."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros_like(bias))

    def delta(self, weight: Tensor) -> Tensor:  # noqa: ARG002
        """The summand."""
        return self.shift


class Bottleneck(AdapterModule):
    """scale * up(relu(down(x))) on the last dimension, zero at the start (AdaptFormer, Chen et al. 2022, eq. 3).

    Args:
        width: Of the input and the output.
        rank: Of the hidden layer.
        scale: Of the output.
        generator: Draws the first layer.
    """

    def __init__(self, width: int, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.down, self.up, self.scale = nn.Linear(width, rank), nn.Linear(rank, width), scale
        with torch.no_grad():
            self.down.weight.copy_(
                torch.randn(rank, width, generator=generator) * (2 / width) ** 0.5
            )
            for zero in (self.down.bias, self.up.weight, self.up.bias):
                zero.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        changed: Tensor = self.up(torch.relu(self.down(x)))
        return self.scale * changed


def add_branch(target: Target, branch: AdapterModule) -> str:
    """Let a module's output be its own plus that of a branch on the same input.

    Returns:
        The branch's name in the network. A module may have several.
    """
    before = sum(isinstance(child, AdapterModule) for child in target.module.children())
    name = f"branch{before or ''}"
    target.module.add_module(name, branch)
    target.module.register_forward_hook(partial(_with_branch, name))
    return f"{target.name}.{name}"


def _with_branch(
    name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """A function of the module, not a closure, so that copies of a network have branches of their own."""
    branch = module.get_submodule(name)  # `nn.Identity` if the branch was pruned
    enabled = isinstance(branch, AdapterModule) and branch.enabled
    return output + branch(inputs[0]) if enabled else output


def add_delta(target: Target, delta: WeightDelta, tensor: str = "weight") -> str:
    """Let a module's weight be computed as base + delta; the base stays under `parametrizations.weight.original`.

    Returns:
        The delta's name in the network. A second delta works on what the first one gives.
    """
    parametrize.register_parametrization(target.module, tensor, delta)
    number = len(target.module.get_submodule(f"parametrizations.{tensor}")) - 1  # type: ignore[arg-type]
    return f"{target.name}.parametrizations.{tensor}.{number}"
