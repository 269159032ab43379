"""Toys: of each architecture a network that is small enough for tests, and the input that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fseft.documents import Triple


@dataclass(frozen=True, eq=False)
class Toy:
    """What `Architecture.build` is given, and the shape of the input.

    Three voxels at the deepest level are the least: two that are normed are 1 and -1, whatever came before.
    """

    hparams: Mapping[str, Any]
    shape: Triple


TOYS: dict[str, Toy] = {
    "resunet": Toy({"channels": (4, 8, 8), "features": 4}, (16, 16, 16)),
    "swinunetr": Toy(
        {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 2}, (96, 32, 32)
    ),
}
"""By the architecture's name."""
