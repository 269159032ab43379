"""Adapter layers: deltas on a weight, which merge exactly, and branches parallel to a module."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from fseft.learn.networks.adapter_module import AdapterModule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fseft.learn.networks.roles import Target


class WeightDelta(AdapterModule):
    """A change of a weight (or bias) that depends on nothing but itself and that weight.

    Subclasses implement `delta`. Switching off, merging and saving work for all of them.

    Examples:
        An element-wise delta that starts at zero:

        ```python
        class DenseDelta(WeightDelta):
            def __init__(self, weight):
                super().__init__()
                self.change = nn.Parameter(torch.zeros_like(weight))

            def delta(self, weight):
                return self.change
        ```
    """

    def delta(self, weight: Tensor) -> Tensor:
        """Returns the change, in the shape of the weight.

        Args:
            weight: The base weight plus the deltas that were added before this one.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError

    def forward(self, weight: Tensor) -> Tensor:
        """Returns weight + delta, or the very same tensor while switched off.

        Args:
            weight: The base weight, or bias, plus the deltas that were added before this one.

        Returns:
            A tensor of the shape of the weight.
        """
        return weight + self.delta(weight) if self.enabled else weight


def full_rank(weight: Tensor) -> int:
    """Returns the largest rank of a weight (n, ...) seen as a matrix (n, product of the others)."""
    return min(weight.shape[0], weight[0].numel())


class LowRank(WeightDelta):
    """LoRA: W + s B A (Hu et al. 2021, arXiv:2106.09685, eq. 3).

    The weight is seen as a matrix: that of a convolution, (out, in/groups, i, j, k), as
    (out, in/groups * i * j * k), and that of a transposed convolution, (in, out/groups, i, j, k),
    as (in, out/groups * i * j * k). B starts at zero.

    Args:
        weight: The base weight; only its shape is used.
        rank: r; limited to the full rank of the weight.
        scale: s = alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732).
        generator: Initialises A, of shape (r, columns), with variance 1 / columns.
    """

    kept_factors: tuple[str, ...] = ("a",)

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, full_rank(weight))
        self.a = nn.Parameter(torch.randn(rank, columns, generator=generator) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))
        self.scale = scale

    def delta(self, weight: Tensor) -> Tensor:
        """Returns s B A, in the shape of the weight."""
        return (self.scale * self.b @ self.a).view_as(weight)


class PrincipalLowRank(LowRank):
    """PiSSA: B A starts as the principal part of the weight (Meng et al. 2024, arXiv:2404.02948).

    Equations 2 to 4 of the paper subtract that part from the base weight. To keep the base
    available, it is subtracted from the delta instead: W + s (B A - B0 A0), the same function.
    Singular vectors differ between machines, so that A0 and B0 are saved as buffers.

    Args:
        weight: The base weight.
        rank: r; limited to the full rank of the weight.
        scale: s.
        generator: As for `LowRank`; the random A is replaced.
    """

    kept_factors = ()  # B does not start at zero
    a0: Tensor
    b0: Tensor

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__(weight, rank, scale, generator)
        rank = len(self.a)
        matrix = weight.detach().flatten(1)
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        root = (s[:rank] / scale).sqrt()
        self.a.data.copy_(root[:, None] * v[:rank])
        self.b.data.copy_(u[:, :rank] * root)
        self.register_buffer("a0", self.a.detach().clone())
        self.register_buffer("b0", self.b.detach().clone())

    def delta(self, weight: Tensor) -> Tensor:
        """Returns s (B A - B0 A0), in the shape of the weight."""
        initial = (self.scale * self.b0 @ self.a0).view_as(weight)
        return super().delta(weight) - initial


class FusedQKVDelta(WeightDelta):
    """Separate deltas for the query, key and value projections of a fused weight (3 * dim, in).

    Args:
        parts: One delta per block of rows, in the order of the blocks.
    """

    def __init__(self, parts: Iterable[WeightDelta]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def delta(self, weight: Tensor) -> Tensor:
        """Returns the deltas of all blocks, stacked to the shape of the weight."""
        blocks = weight.chunk(len(self.parts))
        pairs = zip(self.parts, blocks, strict=True)
        return torch.cat([part.delta(block) for part, block in pairs])  # type: ignore[operator]


class Magnitude(WeightDelta):
    """DoRA: m V / |V|, with a magnitude per output channel (Liu et al. 2024, arXiv:2402.09353).

    V is the weight plus the deltas that were added before (eq. 5); m starts as |W|, so that the
    output is unchanged. The norm is a constant in the gradient (sec. 4.3). The groups of a
    transposed convolution share magnitudes.

    Args:
        weight: The base weight.
        dim: The dimension of the output channels.
    """

    def __init__(self, weight: Tensor, dim: int) -> None:
        super().__init__()
        self.others = [other for other in range(weight.dim()) if other != dim]
        self.m = nn.Parameter(self._norm(weight))

    def delta(self, weight: Tensor) -> Tensor:
        """Returns m V / |V| - V, in the shape of the weight."""
        return weight * (self.m / self._norm(weight) - 1)

    def _norm(self, weight: Tensor) -> Tensor:
        """Returns the norm of each output channel, with all other dimensions of size 1."""
        return weight.detach().pow(2).sum(self.others, keepdim=True).sqrt().clamp_min(1e-12)


class ChannelScale(WeightDelta):
    """A factor 1 + s per channel of a weight or bias, where s starts at zero.

    Args:
        weight: The base weight; only its shape is used.
        dim: The dimension of the channels, of outputs or inputs; the groups of a convolution share
            factors.
        first: Index of the first channel that is scaled; those before it keep the factor 1.
    """

    def __init__(self, weight: Tensor, dim: int, first: int = 0) -> None:
        super().__init__()
        self.dim, self.first = dim, first
        self.s = nn.Parameter(torch.zeros(weight.shape[dim] - first))

    def delta(self, weight: Tensor) -> Tensor:
        """Returns s W, in the shape of the weight."""
        shape = [1] * weight.dim()
        shape[self.dim] = -1
        return weight * F.pad(self.s, (self.first, 0)).view(shape)


class Hypercomplex(WeightDelta):
    """Compacter: a linear map P of a layer's outputs, as a delta on its weight or bias.

    P is the sum of n Kronecker products of A_i, (n, n), and B_i, (width/n, width/n): n^3 +
    width^2 / n parameters (Zhang et al. 2021, arXiv:2102.08597, eq. 3).

    Args:
        width: Number of outputs of the layer; a multiple of n.
        terms: n.
        generator: Initialises A, and B unless it starts at zero.
        residual: W + P W with B = 0 at the start, instead of P W.
    """

    def __init__(
        self, width: int, terms: int, generator: torch.Generator, *, residual: bool
    ) -> None:
        super().__init__()
        side = width // terms
        bound = (6 / side) ** 0.5
        b = bound * (2 * torch.rand(terms, side, side, generator=generator) - 1)
        self.a = nn.Parameter(0.01 * torch.randn(terms, terms, terms, generator=generator))
        self.b = nn.Parameter(torch.zeros_like(b) if residual else b)
        self.residual = residual
        self.kept_factors = ("a",) if residual else ()

    def delta(self, weight: Tensor) -> Tensor:
        """Returns P W, or P W - W if it replaces the weight (width, in) or the bias (width,)."""
        width = len(weight)
        products = torch.einsum("nij,nkl->ikjl", self.a, self.b)
        mixed = products.reshape(width, width) @ weight
        return mixed if self.residual else mixed - weight


class CentreTapDelta(WeightDelta):
    """A pointwise convolution parallel to a spatial one, as a delta on the centre of its kernel.

    Parallel residual adapters (Rebuffi et al. 2018, arXiv:1803.10082, eq. 5); zero at the start.
    It equals the parallel branch for odd kernels with padding of half their size, with any stride.

    Args:
        weight: The base weight (out, in/groups, i, j, k); only its shape is used.
    """

    @staticmethod
    def fits(convolution: nn.Conv3d) -> bool:
        """Returns whether the centre of the kernel reads the voxel of a pointwise convolution."""
        sides, dilations = convolution.kernel_size, convolution.dilation
        if isinstance(convolution.padding, str):
            return convolution.padding == "same" and all(side % 2 for side in sides)
        geometry = zip(sides, dilations, convolution.padding, strict=True)
        return all(
            side % 2 and padding == dilation * (side // 2) for side, dilation, padding in geometry
        )

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.zeros(weight.shape[:2]))

    def delta(self, weight: Tensor) -> Tensor:
        """Returns the pointwise kernel, padded with zeros to the shape of the weight."""
        kernel = torch.zeros_like(weight)
        i, j, k = (side // 2 for side in weight.shape[2:])
        kernel[:, :, i, j, k] = self.point
        return kernel


class BiasShift(WeightDelta):
    """An additive change of each entry of a bias, zero at the start.

    Args:
        bias: The base bias; only its shape is used.
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros_like(bias))

    def delta(self, weight: Tensor) -> Tensor:  # noqa: ARG002
        """Returns the change, in the shape of the bias (out,)."""
        return self.shift


class Bottleneck(AdapterModule):
    """AdaptFormer's branch: s up(relu(down(x))), zero at the start (Chen et al. 2022, eq. 3).

    Args:
        width: Size of the last dimension of input and output.
        rank: Size of the hidden layer.
        scale: s.
        generator: Initialises the first layer.
    """

    kept_factors = ("down.weight", "down.bias")

    def __init__(self, width: int, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        self.down, self.up, self.scale = nn.Linear(width, rank), nn.Linear(rank, width), scale
        down = torch.randn(rank, width, generator=generator) * (2 / width) ** 0.5
        with torch.no_grad():
            self.down.weight.copy_(down)
            for zero in (self.down.bias, self.up.weight, self.up.bias):
                zero.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., width) to (..., width)."""
        output: Tensor = self.up(torch.relu(self.down(x)))
        return self.scale * output


def add_branch(target: Target, branch: AdapterModule) -> str:
    """Adds a branch to a module: output(x) + branch(x).

    Args:
        target: The module.
        branch: Maps the module's input to a tensor of the shape of its output.

    Returns:
        Name of the branch in the network; a module may have several.
    """
    number = sum(isinstance(child, AdapterModule) for child in target.module.children())
    name = f"branch{number or ''}"
    target.module.add_module(name, branch)
    target.module.register_forward_hook(partial(_add_branch_output, name))
    return f"{target.name}.{name}"


def _add_branch_output(
    name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """Adds the output of a branch, found by name so that copies of a network use their own."""
    branch = module.get_submodule(name)  # `nn.Identity` if the branch was pruned
    enabled = isinstance(branch, AdapterModule) and branch.enabled
    return output + branch(inputs[0]) if enabled else output


def add_delta(target: Target, delta: WeightDelta, tensor: str = "weight") -> str:
    """Adds a delta to a parameter of a module; later deltas see the result of earlier ones.

    The base parameter moves to `parametrizations.<tensor>.original`.

    Args:
        target: The module.
        delta: The delta.
        tensor: Name of the parameter.

    Returns:
        Name of the delta in the network.
    """
    parametrize.register_parametrization(target.module, tensor, delta)
    deltas = target.module.get_submodule(f"parametrizations.{tensor}")
    return f"{target.name}.parametrizations.{tensor}.{len(deltas) - 1}"  # type: ignore[arg-type]
