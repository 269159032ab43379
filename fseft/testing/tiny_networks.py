"""Tiny networks of the built-in architectures, small enough for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.schemas import Triple


@dataclass(frozen=True, eq=False)
class TinyNetwork:
    """Hyper-parameters of a tiny network, and the shape of its input.

    The deepest level needs at least three voxels per side: an instance norm of two voxels yields
    1 and -1 for any input.

    Attributes:
        hparams: As in a model card.
        shape: Of the input (i, j, k), in voxels.
    """

    hparams: Mapping[str, Any]
    shape: Triple


CUBE: Triple = (16, 16, 16)

TINY_NETWORKS: dict[str, TinyNetwork] = {
    "anatomix": TinyNetwork({"width": 4, "features": 4, "levels": 2}, CUBE),
    "dynunet": TinyNetwork({"filters": (4, 6, 8)}, CUBE),
    "mednext": TinyNetwork({"init_filters": 4, "blocks": (1, 2)}, CUBE),
    "resunet": TinyNetwork({"channels": (4, 8, 8), "features": 4}, CUBE),
    "segresnet": TinyNetwork({"init_filters": 8, "blocks_down": (1, 2, 1)}, CUBE),
    "segresnet-ds": TinyNetwork({"init_filters": 4, "blocks_down": (1, 2, 1)}, CUBE),
    "suprem-unet": TinyNetwork({"width": 4}, CUBE),
    "swinunetr": TinyNetwork(
        {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 2},
        (96, 32, 32),
    ),
    "unet": TinyNetwork({"channels": (4, 8, 8), "features": 4, "num_res_units": 0}, CUBE),
    "vista3d": TinyNetwork({"encoder_embed_dim": 4, "blocks_down": (1, 2, 1)}, CUBE),
}
"""Tiny network by name of the architecture."""
