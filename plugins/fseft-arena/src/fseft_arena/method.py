"""ARENA (Baklouti et al. 2025, arXiv:2507.15793): W + U diag(v) V^T with an L1 penalty on v, by proximal steps."""

import torch
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.adapter_layers import WeightDelta, add_delta, full_rank
from fseft.learn.adapters.method import require_targets
from torch import nn

ROLES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "conv.spatial", "conv.pointwise", "conv.transposed")
PARTS = ("encoder", "bottleneck")


class SingularChange(WeightDelta):
    """A change U diag(v) V^T of a weight, which is seen as a matrix; its rank is how many of v are not zero.

    U starts at zero and v at one: without a penalty this is LoRA.
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
        """The product, in the weight's shape."""
        return (self.u * self.v @ self.vt).view_as(weight)

    def rank(self):
        """What is left of the rank."""
        return int(self.v.count_nonzero())


class ArenaAdapted(AdaptedNetwork):
    """A network whose singular values are drawn to zero after each step, and cannot be made up for."""

    bound = 0.0

    def changes(self):
        """The changes of weights, by name."""
        return {name: module for name, module in self.network.named_modules() if isinstance(module, SingularChange)}

    def regularizer(self):
        """A term of the loss where columns of U or V are longer than one: the square of |u|^2 - 1, and of |v|^2 - 1.

        Else they grow as the singular value between them shrinks, and the penalty costs nothing.
        """
        if not self.bound:
            return None
        changes = self.changes().values()
        lengths = [change.u.square().sum(0) for change in changes] + [change.vt.square().sum(1) for change in changes]
        return self.bound * nn.functional.relu(torch.cat(lengths) - 1).square().sum()

    @torch.no_grad()
    def on_optimizer_step(self, step, total, optimizer):
        """The proximal step of the penalty, as long as the optimiser's was: v becomes sign(v) max(|v| - t, 0)."""
        penalties = {change.v: change.penalty for change in self.changes().values()}
        for group in optimizer.param_groups:
            for v in penalties.keys() & set(group["params"]):
                v.copy_(nn.functional.softshrink(v, penalties[v] * group["lr"]))


class Arena:
    """The method `arena`."""

    def __init__(self, config):
        self.config = config

    def select(self, architecture, network):
        """The linear and convolutional layers before the decoder."""
        targets = [
            target
            for target in architecture.targets(network)
            if target.part in PARTS and target.role in ROLES and target.weight_has_effect
        ]
        return require_targets(targets, "linear or convolutional layers before the decoder", "arena")

    def apply(self, architecture, network, *, generator):
        """Put a change on each of these weights; all but the changes and the head is frozen."""
        changes = []
        for target in self.select(architecture, network):
            weight = target.module.get_parameter("weight")
            change = SingularChange(weight, self.config.rank, self.config.penalty, generator)
            changes.append(add_delta(target, change))
        rates = {f"{change}.v": self.config.ratio for change in changes}
        adapted = ArenaAdapted.freeze_except(
            changes, architecture, network, learning_rate=1e-3, head_lr_multiplier=10.0, lr_multipliers=rates
        )
        adapted.bound = self.config.bound
        return adapted
