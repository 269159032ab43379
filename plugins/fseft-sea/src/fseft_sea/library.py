"""The library of adapters: every kind, on all layers of its roles in one part and stage, is a unit to keep or drop."""

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
    """A kind of adapter: where it goes, how it is added to a target, and the multiple of the rate that it learns at."""

    name: str
    roles: tuple[str, ...]
    add: Callable
    rate: float = 1.0


@dataclass(frozen=True)
class Unit:
    """What is audited, kept and dropped as one: additions to the network, by name, and the size of all of them."""

    name: str
    additions: tuple[str, ...]
    parameters: int


def kinds(ranks):
    """All kinds; each changes nothing before it is trained."""
    for rank in ranks:
        for layers, roles in LAYERS.items():
            yield Kind(f"lora-{rank} {layers}", roles, partial(_low_rank, rank))
        yield Kind(f"bottleneck-{rank}", ("mlp",), partial(_bottleneck, rank), rate=10.0)
    yield Kind("pointwise", ("conv.spatial",), _pointwise)
    yield Kind("affine", ("norm",), _affine, rate=10.0)


def add_units(targets, ranks, network, generator):
    """Put the whole library into the network.

    Returns:
        The units, and the multiples of the learning rate by tensor.
    """
    places = sorted({(target.stage, target.part) for target in targets})
    units, rates = [], {}
    for kind in kinds(ranks):
        for stage, part in places:
            here = [t for t in targets if (t.stage, t.part) == (stage, part) and t.role in kind.roles]
            additions = tuple(name for target in here for name in kind.add(target, generator))
            tensors = {f"{a}.{n}": p for a in additions for n, p in network.get_submodule(a).named_parameters()}
            if tensors:
                size = sum(tensor.numel() for tensor in tensors.values())
                units.append(Unit(f"{part} {stage} {kind.name}", additions, size))
                rates.update(dict.fromkeys(tensors, kind.rate))
    return tuple(units), rates


def _low_rank(rank, target, generator):
    return [add_delta(target, LowRank(target.module.weight, rank, 2.0, generator))]


def _bottleneck(rank, target, generator):
    first = next(module for module in target.module.modules() if isinstance(module, nn.Linear))
    return [add_branch(target, Bottleneck(first.in_features, rank, 0.1, generator))]


def _pointwise(target, generator):
    return [add_delta(target, CentreTapDelta(target.module.weight))] if CentreTapDelta.fits(target.module) else []


def _affine(target, generator):
    scale = add_delta(target, ChannelScale(target.module.weight, 0))
    return [scale, add_delta(target, BiasShift(target.module.bias), "bias")]
