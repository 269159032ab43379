"""Networks: get an architecture by name, build a network, and load weights into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fseft.errors import FseftError, did_you_mean, plain_message
from fseft.learn.networks.roles import PatchLimits, SizedArchitecture
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.plugin import Config

SMALL_NETWORK = 10_000_000
"""Parameters up to which the methods train a network at a higher rate."""


def get_architecture(name: str) -> Architecture:
    """Returns the architecture of that name.

    Raises:
        FseftError: No plugin provides it, or it cannot be imported.
    """
    architecture: Architecture = registry().create("architecture", name)
    return architecture


def validate_hparams(architecture: Architecture, hparams: Mapping[str, Any]) -> Config:
    """Validates the hyper-parameters of a network.

    Args:
        architecture: Defines their names and types by its `config_class`.
        hparams: Values as in a model card or from `--set`; those left out have their defaults.

    Returns:
        An instance of `config_class`.

    Raises:
        FseftError: The architecture has no such hyper-parameter, or it does not accept the value.
    """
    fields = architecture.config_class.model_fields
    unknown = sorted(hparams.keys() - fields.keys())
    if unknown:
        raise FseftError(
            f"the network has no hyper-parameter {unknown[0]!r}",
            hint=did_you_mean(unknown[0], list(fields)),
        )
    try:
        return architecture.config_class.model_validate(dict(hparams))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        field = fields[name]
        raise FseftError(
            f"the network does not accept {name}={hparams.get(name)!r}: "
            f"{plain_message(first['msg'])}",
            hint=f"{name}: {field.description} (default: {field.default}).",
        ) from error


def patch_limits(architecture: Architecture, hparams: Mapping[str, Any]) -> PatchLimits:
    """Returns the patches that a network accepts.

    Args:
        architecture: Of the network.
        hparams: Its hyper-parameters, as in a model card.

    Raises:
        FseftError: The architecture does not accept the hyper-parameters.
    """
    if isinstance(architecture, SizedArchitecture):
        return architecture.patch_limits(validate_hparams(architecture, hparams))
    return PatchLimits(architecture.divisor, architecture.minimum_patch)


def build_network(
    architecture: Architecture,
    *,
    in_channels: int,
    out_channels: int,
    hparams: Mapping[str, Any],
    seed: int,
) -> nn.Module:
    """Builds a network with random weights, without touching the global random generator.

    Args:
        architecture: Builds it.
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        hparams: Hyper-parameters, as in a model card.
        seed: Determines the weights.

    Returns:
        A module that maps images (B, in, i, j, k) to logits (B, out, i, j, k).

    Raises:
        FseftError: The architecture does not accept the hyper-parameters.
    """
    import torch

    config = validate_hparams(architecture, hparams)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.build(in_channels=in_channels, out_channels=out_channels, config=config)


def load_weights(
    network: nn.Module, tensors: Mapping[str, Tensor], *, source: str, partial: bool = False
) -> list[str]:
    """Loads tensors into a network, in place; stored half precision becomes float32.

    Args:
        network: The network to fill.
        tensors: Tensors by the names of the network's state dict.
        source: Name of the file, for the error.
        partial: Accept tensors for a part of the network only.

    Returns:
        Names of the parameters that `tensors` does not contain, which keep their random values.

    Raises:
        FseftError: A tensor is missing, unexpected or of another shape; the network is unchanged.
    """
    state = network.state_dict()
    missing = [] if partial else sorted(state.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - state.keys())
    common = sorted(state.keys() & tensors.keys())
    mismatched = [name for name in common if state[name].shape != tensors[name].shape]
    if missing or unexpected or mismatched:
        first = (missing or unexpected or mismatched)[0]
        raise FseftError(
            f"the weights do not fit the network: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected, {len(mismatched)} of another shape (first: {first})",
            file=source,
            hint="Use weights of this architecture and width.",
        )
    converted = {name: tensors[name].to(state[name].dtype) for name in common}
    network.load_state_dict(converted, strict=not partial)
    return [name for name, _ in network.named_parameters() if name not in tensors]


def is_small(network: nn.Module) -> bool:
    """Returns whether a network has at most `SMALL_NETWORK` parameters."""
    return count_parameters(network) <= SMALL_NETWORK


def count_parameters(network: nn.Module, *, trainable: bool = False) -> int:
    """Returns the number of parameters, or of those that require a gradient.

    Args:
        network: The network.
        trainable: Whether only parameters that require a gradient are counted.
    """
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trainable)
