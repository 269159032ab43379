"""Turn a network into one under adaptation: the method's part, then the decoder's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from fseft.errors import FseftError, IncompatibleError, PluginError
from fseft.learn.adapters.adapted_network import AdaptedNetwork, head_names
from fseft.learn.adapters.adapter_layers import LowRank, add_delta
from fseft.learn.networks.adapter_module import AdapterModule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.learn.adapters.method import Method
    from fseft.learn.networks.roles import Architecture, Target


DECODER_LEARNING_RATE = 1e-3
"""At most this for decoder and bottleneck beside methods that take large steps with few parameters."""

LOW_RANK_LEARNING_RATE = 3e-3
"""The same where they are low-rank; as the rate of the method `lora`."""

DECODER_RANK, DECODER_SCALE = 8, 2.0
"""Of what is low-rank beside a method; as the defaults of the method `lora`."""


def adapt_network(
    architecture: Architecture,
    network: nn.Module,
    method: Method,
    *,
    decoder: str,
    bottleneck: str = "frozen",
    seed: int,
    random: Sequence[str] = (),
) -> AdaptedNetwork:
    """Apply a method; the head is already in place.

    Args:
        architecture: Knows the network's roles.
        network: Changed in place.
        method: Inserts and freezes.
        decoder: `frozen` leaves the decoder to the method, `fine-tuned` trains it too, `new` from random weights,
            `low-rank` trains its norms and activations and low-rank changes of its other weights, for a small file.
        bottleneck: The same for the deepest level.
        seed: For whatever is drawn.
        random: Parameters that no weights were loaded for; they are trained too.

    Raises:
        FseftError: The network or the settings do not allow the method.
    """
    beside = {
        part: how
        for part, how in (("decoder", decoder), ("bottleneck", bottleneck))
        if how != "frozen"
    }
    targets = {part: _targets(architecture, network, part) for part in beside}
    for part, how in beside.items():
        if how == "new":
            _reset(network, [target.name for target in targets[part]], seed)
    adapted = _applied(architecture, network, method, torch.Generator().manual_seed(seed))
    if not adapted.train_mode:
        _refuse_unmeasured(network, random)
    head = head_names(architecture, network)
    for number, (part, how) in enumerate(beside.items(), start=1):
        names, most = [target.name for target in targets[part]], DECODER_LEARNING_RATE
        if how == "low-rank":
            names, most = (
                _low_rank(targets[part], torch.Generator().manual_seed(seed + number)),
                LOW_RANK_LEARNING_RATE,
            )
        adapted.unfreeze(names, lr_multiplier=_share(most, adapted))
        adapted.unfreeze(head)
    for name, parameter in network.named_parameters():
        if re.sub(r"parametrizations\.(\w+)\.original", r"\1", name) in random:
            parameter.requires_grad_(True)
            adapted.lr_multipliers.setdefault(name, _share(DECODER_LEARNING_RATE, adapted))
    adapted.always_saved = frozenset(
        n for n, _ in network.named_parameters() if n.rpartition(".")[0] in head
    )
    adapted.snapshot_base_weights()
    return adapted


def _share(most: float, adapted: AdaptedNetwork) -> float:
    """Of the method's learning rate, such that it is no more than this."""
    return min(1.0, most / (adapted.learning_rate or 1.0))


def _targets(architecture: Architecture, network: nn.Module, part: str) -> list[Target]:
    found = [target for target in architecture.targets(network) if target.part == part]
    if not found and part == "bottleneck":  # a decoder is tuned by default, if there is one
        raise FseftError("the network has no bottleneck", hint="Leave out --bottleneck.")
    return found


def _applied(
    architecture: Architecture, network: nn.Module, method: Method, generator: torch.Generator
) -> AdaptedNetwork:
    """Apply the method; its author may have forgotten to return the adapted network."""
    adapted: object = method.apply(architecture, network, generator=generator)
    if not isinstance(adapted, AdaptedNetwork):
        raise PluginError(
            f"{type(method).__name__}.apply() returned {type(adapted).__name__}, not AdaptedNetwork"
        )
    return adapted


def _refuse_unmeasured(network: nn.Module, random: Sequence[str]) -> None:
    """A method that keeps batch statistics as they are needs ones that were measured; fresh ones are 0 and 1.

    Raises:
        MisfitError: There are some that no weights were loaded for.
    """
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm3d)]
    unmeasured = [name for name in norms if f"{name}.weight" in random]
    if unmeasured:
        raise IncompatibleError(
            f"no weights were loaded for the batch norm {unmeasured[0]}, whose statistics the method would keep as "
            "they are",
            hint="Use --method full, which measures them, or a model whose weights hold the whole network.",
        )


def _low_rank(targets: list[Target], generator: torch.Generator) -> list[str]:
    """Put a low-rank change on each weight that the method left alone; gives what is to be trained."""
    trained = []
    for target in targets:
        if target.role in ("norm", "act"):
            trained.append(target.name)
            continue
        weight = getattr(target.module, "weight", None)
        changed = any(isinstance(part, AdapterModule) for part in target.module.modules())
        if weight is not None and not weight.requires_grad and not changed:
            change = LowRank(weight, DECODER_RANK, DECODER_SCALE, generator)
            trained.append(add_delta(target, change))
    return trained


def _reset(network: nn.Module, names: list[str], seed: int) -> None:
    """Draw the parameters anew; batch statistics stay, since a method that freezes them could not learn them again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in names:
            module = network.get_submodule(name)
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                statistics = {key: buffer.clone() for key, buffer in module.named_buffers()}
                reset()
                module.load_state_dict(statistics, strict=False)
