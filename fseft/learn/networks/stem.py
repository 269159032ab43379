"""The stem of a network: the layers that take the image, and their weights for several channels."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.learn.networks.backbone import build_network, get_architecture, validate_hparams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Size, Tensor, nn

    from fseft.learn.networks.roles import Architecture, Role, Target

_ROLES: frozenset[Role] = frozenset(("patch_embed", "downsample", "conv.spatial", "conv.pointwise"))
"""Roles of layers whose weight is linear in the channels of the image."""


def find_stem(architecture: str, hparams: Mapping[str, Any], channels: int) -> tuple[str, ...]:
    """Returns the weights that grow with the number of channels of the image.

    They are those whose shape differs between networks of one and of several channels.

    Args:
        architecture: Name of the architecture.
        hparams: Its hyper-parameters.
        channels: Channels of the image, at least 2.

    Raises:
        FseftError: A layer cannot be repeated over channels.
    """
    values = validate_hparams(get_architecture(architecture), hparams)
    return _find_stem(architecture, values.model_dump_json(), channels)


def repeat_stem(
    tensors: Mapping[str, Tensor], stem: tuple[str, ...], channels: int
) -> dict[str, Tensor]:
    """Repeats the stem of a network for one channel over several channels.

    The repeated weights are divided by the number of channels, so that the output of each layer is
    that of the mean of the channels, as for the pre-trained stems of nnU-Net and nnssl.

    Args:
        tensors: Weights of the network for one channel.
        stem: Names of the weights (out, 1, ...) to repeat, from `find_stem`.
        channels: Channels of the image.

    Returns:
        All weights; those of the stem are (out, channels, ...) in float32.

    Examples:
        >>> import torch
        >>> repeat_stem({"conv": torch.ones(1, 1, 1)}, ("conv",), 2)["conv"].tolist()
        [[[0.5], [0.5]]]
    """
    repeated = dict(tensors)
    for name in stem:
        if name in tensors:
            weight = tensors[name].float()
            repeated[name] = weight.repeat_interleave(channels, dim=1) / channels
    return repeated


@lru_cache(maxsize=64)
def _find_stem(name: str, hparams: str, channels: int) -> tuple[str, ...]:
    architecture, values = get_architecture(name), json.loads(hparams)
    one, several = (_build(architecture, values, count) for count in (1, channels))
    before, after = _shapes(one), _shapes(several)
    stem = tuple(tensor for tensor in after if before.get(tensor) != after[tensor])
    cause = "" if stem else "no layer depends on the number of channels"
    if before.keys() != after.keys():
        cause = "the network has other layers for several channels"
    targets = {target.name: target for target in architecture.targets(several)}
    for tensor in () if cause else stem:
        target = targets.get(tensor.rpartition(".")[0])
        cause = cause or _obstacle(tensor, target, before[tensor], after[tensor])
    if cause:
        raise FseftError(
            f"the first layer of {name!r} cannot be repeated over {channels} channels: {cause}",
            hint="Take the mean of the channels, or the first one.",
        )
    return stem


def _obstacle(tensor: str, target: Target | None, before: Size, after: Size) -> str:
    """Returns why a tensor of one channel cannot be repeated; empty if it can."""
    described = "without a role"
    if target is not None:
        described = f"{target.role}, {target.part}"
        expected = (before[0], after[1], *before[2:]) if after[1:] else ()
        if target.role in _ROLES and before[1] == 1 and after == expected:
            return ""
    shapes = f"{_sides(before)} for one channel, and {_sides(after)} then"
    return f"{tensor} ({described}) is {shapes}"


def _build(architecture: Architecture, hparams: Mapping[str, Any], channels: int) -> nn.Module:
    """Builds a network, without memory where its code allows it."""
    import torch

    options: dict[str, Any] = {"in_channels": channels, "out_channels": 1, "seed": 0}
    try:
        with torch.device("meta"):
            return build_network(architecture, hparams=hparams, **options)
    except (NotImplementedError, RuntimeError):  # code that depends on values of weights
        return build_network(architecture, hparams=hparams, **options)


def _shapes(network: nn.Module) -> dict[str, Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _sides(shape: Size) -> str:
    return "×".join(map(str, shape)) or "a number"
