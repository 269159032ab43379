"""Networks: build one by name, fill it with weights, and refuse what does not fit."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import torch

from fseft.errors import FseftError
from fseft.registry import registry
from fseft.schemas import Triple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture

_ARGUMENT = re.compile(r"^ +(\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)
"""One argument of a docstring, with the lines that go on below it."""


def get_architecture(name: str) -> Architecture:
    """Return the architecture of that name, from whichever plugin provides it."""
    architecture: Architecture = registry().create("architecture", name)
    return architecture


@dataclass(frozen=True)
class Hyperparameter:
    """What can be chosen of a network.

    Attributes:
        kind: Its type as written; empty where there is none.
        type: The type itself; None where that cannot be told.
        default: Or "required".
        description: What the docstring says of it.
    """

    kind: str
    type: Any
    default: Any
    description: str = ""


_GIVEN = ("self", "cls", "in_channels", "out_channels")
OTHERS = "..."
"""Stands for the hyperparameters that an architecture hands on to somebody else's class."""


def hyperparameters(architecture: Architecture) -> dict[str, Hyperparameter]:
    """What `build_network` takes by name, described as in its docstring; with `OTHERS` where it takes any."""
    found: dict[str, Hyperparameter] = {}
    told: dict[str, str] = {}
    others = ""
    for owner in type(architecture).__mro__:
        if "build" not in vars(owner):
            continue
        build = getattr(owner, "build")  # noqa: B009 - the type has none
        told = dict(_ARGUMENT.findall(inspect.getdoc(build) or "")) | told
        parameters, types = (
            inspect.signature(build).parameters.values(),
            _types(build),
        )
        for one in parameters:
            if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD) and one.name not in _GIVEN:
                default = "required" if one.default is one.empty else one.default
                kind = "" if one.annotation is one.empty else str(one.annotation)
                found.setdefault(one.name, Hyperparameter(kind, types.get(one.name), default))
        others = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), "")
        if not others:
            break
    if others or not found:
        found[OTHERS] = Hyperparameter("", None, "")
        told[OTHERS] = told.get(others, "")
    return {
        name: replace(one, description=" ".join(told.get(name, "").split()))
        for name, one in found.items()
    }


def _types(build: Callable[..., Any]) -> dict[str, Any]:
    """The types of its arguments; none where a name in them is for type checkers only."""
    usual = {"nn": torch.nn, "Any": Any, "Literal": Literal, "Sequence": Sequence, "Triple": Triple}
    try:
        return get_type_hints(build, localns=usual)
    except NameError:
        return {}


def build_network(
    architecture: Architecture,
    *,
    in_channels: int,
    out_channels: int,
    hparams: Mapping[str, Any],
    seed: int,
) -> nn.Module:
    """A network with random weights that depend on `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.build(in_channels=in_channels, out_channels=out_channels, **hparams)


def load_weights(
    network: nn.Module, tensors: Mapping[str, Tensor], *, source: str, partial: bool = False
) -> list[str]:
    """Fill a network; stored half precision becomes float32.

    Args:
        network: To fill.
        tensors: By its names.
        source: Named in the error.
        partial: The tensors need not be all of the network's.

    Returns:
        Names of the parameters that were left random.

    Raises:
        FseftError: A tensor is missing, left over, or of another shape: nothing is loaded in part.
    """
    wanted = network.state_dict()
    missing = [] if partial else sorted(wanted.keys() - tensors.keys())
    unused = sorted(tensors.keys() - wanted.keys())
    other = sorted(
        name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape
    )
    if missing or unused or other:
        first = (missing or unused or other)[0]
        raise FseftError(
            f"do not fit the network: {len(missing)} tensors missing, {len(unused)} unused, "
            f"{len(other)} of another shape (first: {first})",
            file=source,
            hint="Take the weights of this architecture and width.",
        )
    network.load_state_dict(
        {name: tensors[name].to(wanted[name].dtype) for name in tensors}, strict=not partial
    )
    return [name for name, _ in network.named_parameters() if name not in tensors]


def count_parameters(network: nn.Module, *, trainable: bool = False) -> int:
    """Number of parameters, or of those that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable)
