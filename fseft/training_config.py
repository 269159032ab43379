"""The training configuration; its fields are keys of `--set`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from fseft.schemas import FrozenModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_AUGMENTATIONS = (
    "rotation",
    "scaling",
    "noise",
    "blur",
    "brightness",
    "contrast",
    "gamma",
)
"""The augmentations of `augment=true`, in this order, as in the trainer of nnU-Net."""


COMPONENT_GROUPS = ("loss", "optimizer", "schedule", "augment")
"""The first part of settings of components, such as `loss.alpha` or `augment.noise.std`."""


def _parse_augment(value: Any) -> Any:
    """Reads `true`, `false` or `NAME,NAME`, also as the list that the command line makes of it."""
    if isinstance(value, str):
        value = [name for name in value.split(",") if name]
    if isinstance(value, list | tuple) and len(value) == 1 and str(value[0]).lower() in _BOOLEANS:
        return _BOOLEANS[str(value[0]).lower()]
    return value


_BOOLEANS = {"true": True, "false": False}
Augment = Annotated[bool | tuple[str, ...], BeforeValidator(_parse_augment)]


class TrainingConfig(FrozenModel):
    """Settings of a training run.

    The defaults follow the FSEFT paper, except for augmentation.

    Examples:
        >>> config = TrainingConfig(epochs=50, loss="dice_ce")
        >>> config.epochs, config.weight_decay
        (50, 0.0)
    """

    model_config = ConfigDict(allow_inf_nan=False)

    former_names: ClassVar = {
        "one_rate": "uniform_learning_rate",
        "clip": "max_grad_norm",
        "ema": "ema_decay",
        "warm_up": "warmup_fraction",
        "crops": "crops_per_step",
        "foreground": "foreground_fraction",
        "rounds": "feature_passes",
        "plateau": "early_stopping",
    }
    former_values: ClassVar = {
        "features": {"kept": "cached", "fresh": "recomputed"},
        "augment": {"shift": ["shift"]},
    }

    epochs: int = Field(default=200, ge=1, description="maximum number of epochs")
    learning_rate: float | None = Field(
        default=None, gt=0, description="learning rate; by default the method's"
    )
    uniform_learning_rate: bool = Field(
        default=False, description="the same learning rate for the head, decoder and LoRA+ factors"
    )
    optimizer: str = Field(default="adamw", description="adamw, sgd, or a plugin's")
    schedule: str = Field(
        default="cosine",
        description="course of the learning rate: cosine, constant, poly, or a plugin's",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay of the optimizer")
    max_grad_norm: float | None = Field(
        default=None, gt=0, description="norm to which larger gradients are clipped"
    )
    ema_decay: float | None = Field(
        default=None, ge=0, lt=1, description="decay of the moving average of the weights"
    )
    warmup_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="fraction of the training with a rising learning rate"
    )
    loss: str | None = Field(
        default=None,
        description="dice, dice_ce, dice_wce, or a plugin's; by default dice_wce, and on cached "
        "features dice for voxels and dice_ce for windows",
    )
    crops_per_step: int | None = Field(
        default=None,
        ge=1,
        description="crops per step, each of another case; by default the plan's",
    )
    foreground_fraction: float = Field(
        default=0.5, ge=0, le=1, description="fraction of the crops that are centred on a structure"
    )
    augment: Augment = Field(
        default=True,
        description="true for the default augmentations, false for none, or names such as "
        "rotation,noise; `default` stands for the default ones",
    )
    cutmix_probability: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="fraction of the crops with a box of another crop of the step, image and label",
    )
    mirror: bool = Field(
        default=False, description="flip all axes; refused where left and right structures exist"
    )
    features: Literal["cached", "recomputed"] = Field(
        default="cached",
        description="black-box methods: train on cached features, or recompute them at each step",
    )
    feature_passes: int = Field(
        default=8, ge=1, description="passes over the training cases whose features are cached"
    )
    early_stopping: bool | None = Field(
        default=None,
        description="stop when the training loss no longer improves; by default only on cached "
        "features: elsewhere, the loss changes during training",
    )
    components: dict[str, dict[str, Any]] = Field(
        default={},
        description="settings of components, written as loss.KEY=VALUE, optimizer.KEY=VALUE, "
        "schedule.KEY=VALUE or augment.NAME.KEY=VALUE; `fseft show loss NAME` lists them",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 on a GPU that supports it, else fp32"
    )
    checkpoint_seconds: float = Field(
        default=30.0, ge=0, description="minimum time between two checkpoints, in seconds"
    )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The names of the augmentations; in `augment`, `default` stands for the default ones.

        Examples:
            >>> TrainingConfig(augment="default,shift").augmentations[-2:]
            ('gamma', 'shift')
        """
        names = ("default",) if self.augment is True else self.augment or ()
        selected: list[str] = []
        for name in names:
            selected += DEFAULT_AUGMENTATIONS if name == "default" else (name,)
        return tuple(dict.fromkeys(selected))

    def selected_components(self) -> Iterator[tuple[str, str, str]]:
        """Yields key of the settings, kind and name of each component that is selected by name.

        Examples:
            >>> list(TrainingConfig(loss="dice", augment="noise").selected_components())[1:]
            [('schedule', 'schedule', 'cosine'), ('loss', 'loss', 'dice'), \
('augment.noise', 'augmentation', 'noise')]
        """
        yield "optimizer", "optimizer", self.optimizer
        yield "schedule", "schedule", self.schedule
        if self.loss is not None:
            yield "loss", "loss", self.loss
        for name in self.augmentations:
            yield f"augment.{name}", "augmentation", name

    def component_settings(self, key: str) -> Mapping[str, Any]:
        """Returns the settings of a component by its key in `components`, such as "loss"."""
        return self.components.get(key, {})
