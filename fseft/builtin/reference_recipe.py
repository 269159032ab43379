"""The preset `reference`: FSEFT as its paper and code have it (Silva-Rodríguez et al. 2025, MedIA 103:103596)."""

from __future__ import annotations

from typing import Any

from fseft.plugin import Preset

RECIPE = {
    "loss": "dice",
    "crops_per_step": 6,
    "warmup_fraction": 0.0,
    "augment": "shift",
    "uniform_learning_rate": True,
}
"""Where it differs from our own defaults."""

LEARNING_RATE_WITH_DECODER = 1e-4


def reference(learning_rate: float, **config: Any) -> dict[str, Preset]:
    """The preset of one method.

    Args:
        learning_rate: While the decoder is frozen.
        config: Keys of the method's configuration, and of the recipe where a method differs.
    """
    settings = {**RECIPE, "learning_rate": learning_rate, **config}
    return {
        "reference": Preset(
            settings=settings, with_decoder={"learning_rate": LEARNING_RATE_WITH_DECODER}
        )
    }
