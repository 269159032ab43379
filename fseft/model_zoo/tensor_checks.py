"""Checks of the values of weights, before a model is stored."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

logger = logging.getLogger(__name__)

_PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MAX_CONSTANT_FRACTION = 0.5  # of the weights: some residual branches start at zero


def check_tensors(tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Refuses weights of names and shapes as expected, but of other content.

    Weights that are constant, such as all zero, are an error if most are, and else a warning.

    Args:
        tensors: Tensors of the file, by the names of the network.
        network: State dict of the network.

    Raises:
        FseftError: A tensor is sparse or of a type that the network cannot take, contains NaN or
            infinity, or most weights are constant.
    """
    _check_types(tensors, network)
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    invalid = [name for name, tensor in floating.items() if not tensor.isfinite().all()]
    if invalid:
        raise FseftError(
            f"{pluralise(len(invalid), 'tensor')} with NaN or infinity in it (first {invalid[0]})",
            hint="Download it again; if it stays the same, its training had failed.",
        )
    weights = {name: tensor for name, tensor in floating.items() if tensor.ndim > 1}
    constant = [name for name, tensor in weights.items() if _is_constant(tensor)]
    if len(constant) > _MAX_CONSTANT_FRACTION * len(weights):
        raise FseftError(
            f"{len(constant)} of {len(weights)} weights are constant (first {constant[0]})",
            hint="Download it again; if it stays the same, it was not trained.",
        )
    if constant:
        count = pluralise(len(constant), "weight")
        logger.warning("%s constant, as if not trained (first %s)", count, constant[0])


def _check_types(tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Refuses sparse tensors, and anything but floating-point weights of usual precision."""
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided:
            kind = f"sparse {kind}"
        elif not network[name].is_floating_point() or tensor.dtype in _PRECISIONS:
            continue
        raise FseftError(
            f"the tensor {name} is {kind}, the network has floating-point weights",
            hint="Use a file in float32, float16 or bfloat16, without quantisation.",
        )


def _is_constant(tensor: Tensor) -> bool:
    return tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses tensors with NaN or infinity.

    Args:
        tensors: Tensors by name.
        path: The file for the message.

    Raises:
        FseftError: A value is not finite.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            cause = f"the tensor {name} contains NaN or infinity"
            raise FseftError(cause, file=path, hint="Adapt again, with a lower learning rate.")
