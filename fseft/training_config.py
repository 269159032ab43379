"""How a training goes, in one frozen part; its fields are keys of `--set`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from fseft.schemas import FrozenModel

Augment = bool | Literal["shift"]


class TrainingConfig(FrozenModel):
    """How training goes; each field is a key of `--set`. Defaults follow the FSEFT paper but for augmentation."""

    model_config = ConfigDict(allow_inf_nan=False)

    epochs: int = Field(
        default=200, ge=1, description="at most this many passes over the support set"
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="of AdamW; by default the method's own"
    )
    one_rate: bool = Field(
        default=False, description="the same rate for all: no other for the head, decoder or LoRA+"
    )
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float | None = Field(
        default=None, gt=0, description="largest norm of the gradient; longer ones are scaled"
    )
    ema: float | None = Field(
        default=None, ge=0, lt=1, description="decay of a moving average of the weights"
    )
    warm_up: float = Field(
        default=0.05, ge=0, lt=1, description="share of the schedule that warms up"
    )
    loss: Literal["dice", "dice_ce"] | None = Field(
        default=None,
        description="of the structures; by default dice, and dice_ce, with cross-entropy, on windows of features",
    )
    crops: int | None = Field(
        default=None, ge=1, description="crops of one volume per step; by default the plan's"
    )
    foreground: float = Field(
        default=0.5, ge=0, le=1, description="share of crops around a structure"
    )
    augment: Augment = Field(
        default=True, description="shift: small shifts of the intensities alone"
    )
    mirror: bool = Field(
        default=False, description="flip all axes; refused where left and right structures exist"
    )
    features: Literal["kept", "fresh"] = Field(
        default="kept",
        description="black-box methods: on features kept from one pass, or fresh at each step",
    )
    rounds: int = Field(
        default=8, ge=1, description="passes over the support set whose features are kept"
    )
    plateau: bool = Field(default=True, description="stop when the training loss stops improving")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 on a GPU that has it, else fp32"
    )
    checkpoint_seconds: float = Field(
        default=30.0, ge=0, description="least time between two checkpoints"
    )
