"""Costs of networks: parameters, memory of activations, and operations; measured once.

Importing this module does not import PyTorch: the costs of the networks of the catalogue ship with
the package (`benchmarks/network_costs.py` measures them), and those of others are kept in the
user's cache folder, by architecture and hyper-parameters.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.learn.networks import backbone
from fseft.registry import registry
from fseft.schemas.base import Document, FrozenModel
from fseft.workspace import digest, model_cache, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Mapping

SHIPPED = Path(__file__).with_name("network_costs.json")
"""Costs of the networks of the catalogue."""


class NetworkCost(FrozenModel):
    """Costs of a network without its head, per voxel of a patch.

    Attributes:
        activation_bytes: Bytes that a forward pass saves for the backward pass, per voxel.
        parameters: Number of parameters.
        flops: Floating-point operations of a forward pass, per voxel.
    """

    activation_bytes: float
    parameters: int
    flops: float


class NetworkCosts(Document):
    """Costs of several networks by key, see `cost_key`."""

    costs: dict[str, NetworkCost]


def network_cost(architecture: str, hparams: Mapping[str, Any], in_channels: int) -> NetworkCost:
    """Returns what a network costs; only the first call for a network builds and measures it.

    Args:
        architecture: Name of the architecture.
        hparams: Its hyper-parameters; those left out have their defaults.
        in_channels: Channels of the image.

    Raises:
        FseftError: The architecture is unknown, or does not accept the hyper-parameters.
    """
    values = backbone.validate_hparams(backbone.get_architecture(architecture), hparams)
    return _cost(architecture, values.model_dump_json(), in_channels)


def cost_key(architecture: str, hparams: str, in_channels: int) -> str:
    """Returns the key of a network.

    Args:
        architecture: Name of the architecture.
        hparams: All its hyper-parameters, as JSON.
        in_channels: Channels of the image.
    """
    return f"{architecture}-{digest(hparams, in_channels)}"


@lru_cache(maxsize=64)
def _cost(architecture: str, hparams: str, in_channels: int) -> NetworkCost:
    key = cost_key(architecture, hparams, in_channels)
    source = registry().provenance("architecture", architecture)
    if source.distribution == "fseft" and key in _shipped():
        return _shipped()[key]
    # Another version of the package may build another network.
    path = model_cache() / "network-costs" / f"{key}-{digest(source.model_dump())}.json"
    if path.is_file():
        try:
            return read_document(path, NetworkCosts).costs[key]
        except (FseftError, KeyError):
            path.unlink(missing_ok=True)  # damaged: measured again
    from fseft.learn.training.cost_measurement import measure_cost

    cost = measure_cost(architecture, json.loads(hparams), in_channels)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_document(path, NetworkCosts(costs={key: cost}))
    except (FseftError, OSError):  # a cache folder that cannot be written
        pass
    return cost


@lru_cache(maxsize=1)
def _shipped() -> dict[str, NetworkCost]:
    return read_document(SHIPPED, NetworkCosts).costs
