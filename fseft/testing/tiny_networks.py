"""Toys: of each architecture a network that is small enough for tests, and the input that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.schemas import Triple


@dataclass(frozen=True, eq=False)
class TinyNetwork:
    """What `Architecture.build` is given, and the shape of the input.

    Three voxels at the deepest level are the least: two that are normed are 1 and -1, whatever came before.
    """

    hparams: Mapping[str, Any]
    shape: Triple


CUBE: Triple = (16, 16, 16)

TINY_NETWORKS: dict[str, TinyNetwork] = {
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
"""By the architecture's name."""
