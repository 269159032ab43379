"""The preset `reference`: the settings of the FSEFT paper and its code.

Silva-Rodríguez et al. 2025, Medical Image Analysis 103:103596.
"""

from __future__ import annotations

from typing import Any

from fseft.plugin import Preset

TRAINING = {
    "loss": "dice",
    "crops_per_step": 6,
    "early_stopping": True,
    "warmup_fraction": 0.0,
    "augment": "shift",
    "uniform_learning_rate": True,
}
"""Training settings that differ from the defaults of fseft."""

LEARNING_RATE_WITH_DECODER = 1e-4
"""Learning rate of all methods if the decoder is trained too."""


def reference(learning_rate: float, **config: Any) -> dict[str, Preset]:
    """Returns the preset of a method, by its name.

    Args:
        learning_rate: Learning rate while the decoder is frozen.
        config: Settings of the method, and training settings that differ for this method.
    """
    settings = {**TRAINING, "learning_rate": learning_rate, **config}
    with_decoder = {"learning_rate": LEARNING_RATE_WITH_DECODER}
    return {"reference": Preset(settings=settings, with_decoder=with_decoder)}
