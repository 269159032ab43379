"""The library of adapters.

A unit is one kind of adapter on all matching layers in one part and stage of the network: it is
audited, kept and pruned as a whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fseft.learn.adapters.adapter_layers import (
    BiasShift,
    Bottleneck,
    CentreTapDelta,
    ChannelScale,
    LowRank,
    add_branch,
    add_delta,
)
from torch import nn

PARTS = ("encoder", "bottleneck")
LAYERS = {
    "attention": ("attn.qkv", "attn.proj"),
    "feed-forward": ("mlp.fc1", "mlp.fc2"),
    "convolutions": ("conv.spatial", "conv.pointwise", "conv.transposed"),
}


@dataclass(frozen=True)
class Kind:
    """A kind of adapter.

    Attributes:
        name: Name for the user.
        roles: Roles of the layers that it is added to.
        add: `add(target, generator)` adds it to a layer and returns the names of what it added.
        lr_multiplier: Multiple of the learning rate.
    """

    name: str
    roles: tuple[str, ...]
    add: Callable
    lr_multiplier: float = 1.0


@dataclass(frozen=True)
class Unit:
    """Adapters that are audited, kept and pruned together.

    Attributes:
        name: Part, stage and kind.
        adapters: Names of the adapters in the network.
        parameters: Total number of their parameters.
        lr_multiplier: Multiple of the learning rate.
    """

    name: str
    adapters: tuple[str, ...]
    parameters: int
    lr_multiplier: float = 1.0


def kinds(ranks):
    """Yields all kinds; each leaves the output unchanged until it is trained."""
    for rank in ranks:
        for layers, roles in LAYERS.items():
            yield Kind(f"lora-{rank} {layers}", roles, partial(_add_low_rank, rank))
        yield Kind(f"bottleneck-{rank}", ("mlp",), partial(_add_bottleneck, rank), 10.0)
    yield Kind("pointwise", ("conv.spatial",), _add_pointwise)
    yield Kind("affine", ("norm",), _add_affine, 10.0)


def add_units(targets, ranks, network, generator):
    """Adds the whole library to the network.

    Args:
        targets: The layers to adapt.
        ranks: Ranks of the low-rank deltas, and widths of the bottlenecks.
        network: The network; it is changed in place.
        generator: Source of random numbers.

    Returns:
        The units.
    """
    units = []
    for kind in kinds(ranks):
        for stage, part in sorted({(target.stage, target.part) for target in targets}):
            adapters = [
                name
                for target in targets
                if (target.stage, target.part) == (stage, part) and target.role in kind.roles
                for name in kind.add(target, generator)
            ]
            if adapters:
                size = sum(_count_parameters(network, name) for name in adapters)
                name = f"{part} {stage} {kind.name}"
                units.append(Unit(name, tuple(adapters), size, kind.lr_multiplier))
    return tuple(units)


def _count_parameters(network, adapter):
    return sum(parameter.numel() for parameter in network.get_submodule(adapter).parameters())


def _add_low_rank(rank, target, generator):
    return [add_delta(target, LowRank(target.module.weight, rank, 2.0, generator))]


def _add_bottleneck(rank, target, generator):
    layers = (module for module in target.module.modules() if isinstance(module, nn.Linear))
    width = next(layers).in_features
    return [add_branch(target, Bottleneck(width, rank, 0.1, generator))]


def _add_pointwise(target, generator):
    if not CentreTapDelta.fits(target.module):
        return []
    return [add_delta(target, CentreTapDelta(target.module.weight))]


def _add_affine(target, generator):
    scale = add_delta(target, ChannelScale(target.module.weight, 0))
    return [scale, add_delta(target, BiasShift(target.module.bias), "bias")]
