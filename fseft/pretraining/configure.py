"""What `fseft pretrain` was asked for, what of it cannot be met, and who hears of the rest."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from fseft.errors import FseftError, did_you_mean
from fseft.experiment.settings import check_components, parsed_value
from fseft.learn.networks.backbone import validate_hparams
from fseft.model_zoo.catalogue import valid_name
from fseft.registry import registry
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fseft.learn.networks.roles import Architecture
    from fseft.learn.networks.state_dict_mapping import LoadReport
    from fseft.learn.training.progress import Epoch
    from fseft.schemas import Millimetres, Triple

RECIPE = TrainingConfig(
    loss="dice_ce",
    learning_rate=1e-3,
    weight_decay=1e-5,
    max_grad_norm=1.0,
    ema_decay=0.999,
    early_stopping=False,
    foreground_fraction=0.8,
    crops_per_step=2,
    checkpoint_seconds=0,
)
"""Two crops per step and rank, each of a case of its own; four in five around a structure; a checkpoint each epoch."""

SETTINGS = (
    "loss",
    "optimizer",
    "schedule",
    "weight_decay",
    "warmup_fraction",
    "max_grad_norm",
    "ema_decay",
    "foreground_fraction",
    "augment",
    "precision",
)
"""The fields of the recipe that have no option of their own."""

WITH_OPTION = {
    "epochs": "--epochs",
    "learning_rate": "--learning-rate",
    "crops_per_step": "--crops",
}
"""Those that have one."""

COUNTING = (
    *(
        "labels",
        "absent_means",
        "masking",
        "temperature",
        "validation_share",
        "spacing_mm",
        "window",
        "patch_size",
    ),
    *("steps_per_epoch", "minutes", "seed"),
)
"""Fields of a request that the weights depend on."""


@dataclass(frozen=True)
class PretrainRequest:
    """What `fseft pretrain` was asked for.

    Attributes:
        folders: The datasets.
        name: Of the new model.
        architecture: Empty: that of `init`, or the small one.
        hparams: Of the network.
        init: A model's name, or a file of weights.
        trust: Let that file run code of its own.
        labels: The only classes, if given.
        absent_means: Rules for structures that are not in a label file, see `annotations.absent_means`.
        masking: `none` takes what a case does not annotate for background, for comparison.
        temperature: How evenly datasets are drawn, see `sampling_probabilities`.
        validation_share: Of the cases that are held out.
        steps_per_epoch: Between two checkpoints.
        workers: Processes that preprocess, and that draw crops.
        cluster: A dask scheduler whose workers preprocess instead.
        keep: How many checkpoints stay.
        resume: Refuse to start anew.
        overwrite: Start anew, whatever there is under this name.
        shard: Share out parameters, gradients and moments over the ranks (FSDP2).
        recompute: Keep no activations inside blocks; compute them again for the backward pass.
    """

    folders: tuple[Path, ...]
    name: str
    architecture: str = ""
    hparams: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    trust: bool = False
    labels: tuple[str, ...] = ()
    absent_means: tuple[str, ...] = ()
    masking: Literal["annotated", "none"] = "annotated"
    temperature: float = math.inf
    validation_share: float = 0.05
    spacing_mm: Millimetres | None = None
    window: tuple[float, float] | None = None
    patch_size: Triple = (64, 64, 64)
    recipe: TrainingConfig = RECIPE
    steps_per_epoch: int = 50
    minutes: float | None = None
    seed: int = 0
    licence: str = ""
    device: str = "cpu"
    workers: int = 1
    cluster: str = ""
    half: bool = False
    keep: int = 1
    resume: bool = False
    overwrite: bool = False
    shard: bool = False
    compiled: bool = False
    recompute: bool = False

    def settings(self) -> dict[str, str]:
        """What the weights depend on besides the data, the start and the number of crops, in words."""
        own = {key: getattr(self, key) for key in COUNTING}
        evenly = self.temperature if math.isfinite(self.temperature) else "balanced"
        told = {
            **own,
            "temperature": evenly,
            **self.recipe.model_dump(include={"epochs", "learning_rate", *SETTINGS}),
        }
        return {key: in_words(value) for key, value in told.items()}


def in_words(value: object) -> str:
    """A setting as the user gives it."""
    if isinstance(value, list | tuple) and value:
        return ",".join(
            f"[{in_words(one)}]" if isinstance(one, list | tuple) else in_words(one)
            for one in value
        )
    return "default" if value in (None, "", (), []) else str(value).removesuffix(".0")


@dataclass(frozen=True)
class Watcher:
    """What the caller wants to hear; each rank has a caller of its own.

    Attributes:
        epoch: Told after each epoch, with the Dice of each class on held-out cases.
        warn: Told what may disappoint.
        loaded: Told what became of the tensors of `--init`.
        note: Told what a dataset's own names were taken for, what is trained on what, and where it is gone on with.
        progress: Called as progress(total, what) where cases are measured or preprocessed; gives a context whose
            value is called with the name of each case that is done.
        step: Told after each step, with the epoch as far as it is.
    """

    epoch: Callable[[Epoch, Mapping[str, float]], None] = lambda _epoch, _dice: None
    warn: Callable[[str], None] = lambda _: None
    loaded: Callable[[LoadReport], None] = lambda _: None
    note: Callable[[str], None] = lambda _: None
    progress: Callable[[int, str], AbstractContextManager[Callable[[str], None]]] = (
        lambda _total, _what: nullcontext(lambda _: None)
    )
    step: Callable[[Epoch], None] = lambda _: None


def split_settings(settings: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`--set key=value`: fields of the recipe, and what else there is as hyperparameters of the network.

    Raises:
        FseftError: No `key=value`, or a value that the recipe does not take.
    """
    given = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise FseftError(
                f"--set {setting!r} is no key=value", hint="Write for example --set ema_decay=0.99."
            )
        given[TrainingConfig.current_name(key)] = parsed_value(value)
    recipe = {key: value for key, value in given.items() if key in SETTINGS}
    try:
        validated = TrainingConfig(**recipe)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise FseftError(
            f"--set {key}={recipe[key]}: {first['msg']}", hint="Give another value."
        ) from error
    check_components(validated)
    others = {key: value for key, value in given.items() if key not in recipe}
    return {key: getattr(validated, key) for key in recipe}, others


def check(request: PretrainRequest, architecture: Architecture) -> None:
    """Refuse what cannot be trained.

    Raises:
        FseftError: Something cannot.
    """
    divisor, least = architecture.divisor, architecture.minimum_patch
    cause, hint = "", "Choose another."
    valid_name(request.name, "--out")
    if request.name in registry().registrations("model"):
        cause = (
            f"--out {request.name}: is a model of the list (`fseft models`), which it would hide"
        )
    elif request.resume and request.overwrite:
        cause, hint = "--resume and --overwrite exclude each other", "Give one of them."
    elif any(
        side % d or side < m for side, d, m in zip(request.patch_size, divisor, least, strict=True)
    ):
        cause = f"--patch {in_words(request.patch_size)}: sides must be divisible by {in_words(divisor)} and at least "
        cause += in_words(least)
        fitting = (
            max(m, -(-side // d) * d)
            for side, d, m in zip(request.patch_size, divisor, least, strict=True)
        )
        hint = f"Give --patch {in_words(tuple(fitting))}, for example."
    elif request.window is not None and request.window[0] >= request.window[1]:
        cause = f"--window={in_words(request.window)}: the first value must be the lower one"
    elif request.spacing_mm is not None and min(request.spacing_mm) <= 0:
        cause = f"--spacing {in_words(request.spacing_mm)}: must be more than 0"
    elif not request.temperature > 0:
        cause = f"--temperature {request.temperature:g}: must be more than 0"
    if cause:
        raise FseftError(cause, hint=hint)


def network_hparams(hparams: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Validate the hyper-parameters of the network, as JSON values for the model card.

    Raises:
        FseftError: The architecture has no such hyper-parameter, or it does not accept the value.
    """
    fields = architecture.config_class.model_fields
    for key in sorted(hparams.keys() - fields.keys()):
        raise FseftError(
            f"--set {key}: neither the training nor the network has this setting",
            hint=f"Give {WITH_OPTION[key]} instead."
            if key in WITH_OPTION
            else did_you_mean(key, [*SETTINGS, *fields]),
        )
    config = validate_hparams(architecture, hparams)
    return config.model_dump(mode="json", exclude_unset=True)
