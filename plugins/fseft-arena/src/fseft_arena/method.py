"""ARENA: W + U diag(v) V^T with an L1 penalty on v, applied by proximal steps.

Baklouti et al. 2025, arXiv:2507.15793.
"""

import torch
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.adapter_layers import WeightDelta, add_delta, full_rank
from fseft.learn.adapters.method import BaseMethod
from torch import nn
from torch.nn import functional as F

ROLES = (
    "attn.qkv",
    "attn.proj",
    "mlp.fc1",
    "mlp.fc2",
    "conv.spatial",
    "conv.pointwise",
    "conv.transposed",
)
PARTS = ("encoder", "bottleneck")


class SVDDelta(WeightDelta):
    """A delta U diag(v) V^T on a weight seen as a matrix; its rank is the number of nonzero v.

    U starts at zero and v at one: without a penalty this is LoRA.

    Args:
        weight: The base weight; only its shape is used.
        rank: Initial rank; limited to the full rank of the weight.
        penalty: Weight of the L1 norm of v.
        generator: Initialises V.
    """

    def __init__(self, weight, rank, penalty, generator):
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, full_rank(weight))
        self.u = nn.Parameter(torch.zeros(rows, rank))
        self.v = nn.Parameter(torch.ones(rank))
        self.vt = nn.Parameter(torch.randn(rank, columns, generator=generator) / columns**0.5)
        self.penalty = penalty

    def delta(self, weight):
        """Returns U diag(v) V^T, in the shape of the weight."""
        return (self.u * self.v @ self.vt).view_as(weight)

    def rank(self):
        """Returns the current rank, the number of nonzero singular values."""
        return int(self.v.count_nonzero())


class ArenaNetwork(AdaptedNetwork):
    """A network whose singular values shrink after each step.

    Attributes:
        bound: Weight of the penalty on columns of U and V that are longer than 1.
    """

    bound = 0.0

    def deltas(self):
        """Returns the deltas, by name in the network."""
        modules = self.network.named_modules()
        return {name: module for name, module in modules if isinstance(module, SVDDelta)}

    def regularizer(self):
        """Returns the sum of max(0, |u|^2 - 1)^2 and max(0, |v|^2 - 1)^2 over all columns.

        Otherwise the columns grow as the singular value between them shrinks, and the L1 penalty
        has no effect.
        """
        if not self.bound:
            return None
        deltas = self.deltas().values()
        lengths = [delta.u.square().sum(0) for delta in deltas]
        lengths += [delta.vt.square().sum(1) for delta in deltas]
        return self.bound * F.relu(torch.cat(lengths) - 1).square().sum()

    @torch.no_grad()
    def on_optimizer_step(self, step, total, optimizer):
        """Takes the proximal step of the penalty: v becomes sign(v) max(|v| - penalty * lr, 0)."""
        penalties = {delta.v: delta.penalty for delta in self.deltas().values()}
        for group in optimizer.param_groups:
            for v in penalties.keys() & set(group["params"]):
                v.copy_(F.softshrink(v, penalties[v] * group["lr"]))


class Arena(BaseMethod):
    """Method `arena`."""

    name, needs = "arena", "linear or convolutional layers before the decoder"
    learning_rate, head_lr_multiplier = 3e-3, 10.0

    def wants(self, target):
        """Returns True for linear and convolutional layers before the decoder."""
        return target.part in PARTS and target.role in ROLES and target.weight_has_effect

    def attach(self, target, generator):
        """Adds a delta to the weight of a layer."""
        weight, config = target.module.get_parameter("weight"), self.config
        delta = SVDDelta(weight, config.rank, config.penalty, generator)
        return [add_delta(target, delta)]

    def lr_multipliers(self, network):
        """Returns the multiple for the singular values."""
        modules = network.named_modules()
        names = [name for name, module in modules if isinstance(module, SVDDelta)]
        return {f"{name}.v": self.config.v_lr_ratio for name in names}

    def adapted_type(self):
        """Returns the class with the penalties."""
        return ArenaNetwork

    def apply(self, architecture, network, *, generator):
        """Adds the deltas, and freezes everything but them and the head."""
        adapted = super().apply(architecture, network, generator=generator)
        adapted.bound = self.config.bound
        return adapted
