"""Applies a method to a network, and train decoder and bottleneck in addition where requested."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from fseft.errors import FseftError, IncompatibleError, PluginError
from fseft.learn.adapters.adapted_network import AdaptedNetwork, head_names
from fseft.learn.adapters.adapter_layers import LowRank, add_delta
from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.networks.backbone import is_small

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.learn.adapters.method import Method
    from fseft.learn.networks.roles import Architecture, Target


MAX_LEARNING_RATE = 1e-3
"""Upper bound for a decoder or bottleneck that is trained in addition to a method."""

MAX_LEARNING_RATE_IF_SMALL = 8e-3
"""The same for pre-trained weights of a small network, see `is_small`; the default of `full`."""

MAX_LOW_RANK_LEARNING_RATE = 3e-3
"""Upper bound if it is trained by low-rank deltas."""

RANK, SCALE = 8, 2.0
"""Of those deltas; the defaults of the method `lora`."""


def adapt_network(
    architecture: Architecture,
    network: nn.Module,
    method: Method,
    *,
    decoder: str,
    bottleneck: str = "frozen",
    seed: int,
    missing_keys: Sequence[str] = (),
) -> AdaptedNetwork:
    """Applies a method to a network, and train further parts in addition.

    Args:
        architecture: Describes the layers of the network.
        network: The network, with the head for the new structures; it is changed in place.
        method: Inserts adapters and freezes the rest.
        decoder: `frozen` leaves the decoder to the method; `fine-tuned` trains it; `new` trains it
            from random weights; `low-rank` trains norms, activations and low-rank deltas of its
            other weights, for a small file.
        bottleneck: The same for the deepest level.
        seed: Random seed of all initialisations.
        missing_keys: Parameters for which no weights were loaded; they are trained too.

    Returns:
        The adapted network, ready for training.

    Raises:
        FseftError: The network or the settings do not allow the method.
    """
    modes = {"decoder": decoder, "bottleneck": bottleneck}
    modes = {part: mode for part, mode in modes.items() if mode != "frozen"}
    targets = {part: _targets_of(part, architecture, network) for part in modes}
    for part, mode in modes.items():
        if mode == "new":
            _reset(targets[part], network, seed)
    adapted = _apply(method, architecture, network, torch.Generator().manual_seed(seed))
    if not adapted.train_mode:
        _require_batch_statistics(network, missing_keys)
    for number, (part, mode) in enumerate(modes.items(), start=1):
        generator = torch.Generator().manual_seed(seed + number)
        limit = _learning_rate_limit(targets[part], mode, network, missing_keys)
        _train_part(adapted, targets[part], mode, limit, generator)
    head = head_names(architecture, network)
    if modes:
        adapted.unfreeze(head)
    _train_missing(adapted, missing_keys)
    adapted.always_saved = _parameters_of(head, network)
    adapted.snapshot_base_weights()
    return adapted


def _parameters_of(modules: Sequence[str], network: nn.Module) -> frozenset[str]:
    """Returns the names of the parameters that belong to modules directly."""
    return frozenset(
        name for name, _ in network.named_parameters() if name.rpartition(".")[0] in modules
    )


def _targets_of(part: str, architecture: Architecture, network: nn.Module) -> list[Target]:
    """Returns the targets of a part; a decoder, which is trained by default, may be missing."""
    targets = [target for target in architecture.targets(network) if target.part == part]
    if not targets and part == "bottleneck":
        raise FseftError("the network has no bottleneck", hint="Leave the bottleneck frozen.")
    return targets


def _apply(
    method: Method, architecture: Architecture, network: nn.Module, generator: torch.Generator
) -> AdaptedNetwork:
    """Applies the method, and refuses one that does not return the adapted network."""
    adapted: object = method.apply(architecture, network, generator=generator)
    if not isinstance(adapted, AdaptedNetwork):
        raise PluginError(
            f"{type(method).__name__}.apply() returned {type(adapted).__name__}, not AdaptedNetwork"
        )
    return adapted


def _learning_rate_limit(
    targets: list[Target], mode: str, network: nn.Module, missing_keys: Sequence[str]
) -> float:
    """Returns the upper bound of the learning rate of a part; random weights need a lower one."""
    if mode == "low-rank":
        return MAX_LOW_RANK_LEARNING_RATE
    prefixes = tuple(f"{target.name}." for target in targets)
    is_random = mode == "new" or any(name.startswith(prefixes) for name in missing_keys)
    return MAX_LEARNING_RATE if is_random or not is_small(network) else MAX_LEARNING_RATE_IF_SMALL


def _train_part(
    adapted: AdaptedNetwork,
    targets: list[Target],
    mode: str,
    limit: float,
    generator: torch.Generator,
) -> None:
    """Trains the targets of a part in addition to what the method trains."""
    is_low_rank = mode == "low-rank"
    names = _add_low_rank(targets, generator) if is_low_rank else [each.name for each in targets]
    adapted.unfreeze(names, lr_multiplier=_limited_multiplier(adapted, limit))


def _train_missing(adapted: AdaptedNetwork, missing_keys: Sequence[str]) -> None:
    """Trains the parameters without loaded weights: random weights are never frozen."""
    for name, parameter in adapted.network.named_parameters():
        if re.sub(r"parametrizations\.(\w+)\.original", r"\1", name) in missing_keys:
            parameter.requires_grad_(True)
            multiplier = _limited_multiplier(adapted, MAX_LEARNING_RATE)
            adapted.lr_multipliers.setdefault(name, multiplier)


def _limited_multiplier(adapted: AdaptedNetwork, limit: float) -> float:
    """Returns the multiple of the method's learning rate that does not exceed a limit."""
    return min(1.0, limit / (adapted.learning_rate or 1.0))


def _require_batch_statistics(network: nn.Module, missing_keys: Sequence[str]) -> None:
    """Refuses batch norms without loaded statistics, which the method would freeze at 0 and 1.

    Raises:
        IncompatibleError: Such a norm exists.
    """
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm3d)]
    initial = [name for name in norms if f"{name}.weight" in missing_keys]
    if initial:
        raise IncompatibleError(
            f"no weights were loaded for the batch norm {initial[0]}, whose statistics the method "
            "would freeze at their initial values",
            hint="Use the method full, which estimates them, or a model whose weights contain the "
            "whole network.",
        )


def _add_low_rank(targets: list[Target], generator: torch.Generator) -> list[str]:
    """Adds a low-rank delta to each weight that the method neither trains nor changes.

    Returns:
        Names of the modules to train.
    """
    trained = []
    for target in targets:
        if target.role in ("norm", "act"):
            trained.append(target.name)
            continue
        weight = getattr(target.module, "weight", None)
        changed = any(isinstance(module, AdapterModule) for module in target.module.modules())
        if weight is not None and not weight.requires_grad and not changed:
            trained.append(add_delta(target, LowRank(weight, RANK, SCALE, generator)))
    return trained


def _reset(targets: list[Target], network: nn.Module, seed: int) -> None:
    """Initialises the modules of targets randomly.

    Batch statistics are kept, since a method that freezes them could not estimate them again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for target in targets:
            module = network.get_submodule(target.name)
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                statistics = {key: buffer.clone() for key, buffer in module.named_buffers()}
                reset()
                module.load_state_dict(statistics, strict=False)
