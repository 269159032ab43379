"""Request of a pre-training: its options, and the checks that need no data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fseft.errors import FseftError, did_you_mean
from fseft.experiment.settings import component_provenance
from fseft.learn.networks.backbone import patch_limits, validate_hparams
from fseft.model_zoo.catalogue import check_model_name
from fseft.registry import registry
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fseft.learn.networks.roles import Architecture, PatchLimits
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.schemas import Dataset, Millimetres, MissingLabel, Triple

DEFAULT_TRAINING = TrainingConfig(
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
"""Two crops per step and rank, drawn independently, and a checkpoint after each epoch."""

TRAINING_KEYS = (
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
"""Fields of the training configuration that pre-training takes as settings."""

OPTION_KEYS = ("epochs", "learning_rate", "crops_per_step")
"""Further fields of it that pre-training takes; the command line has an option for each."""

_RELEVANT_FIELDS = (
    "labels",
    "masking",
    "validation_fraction",
    "spacing_mm",
    "window",
    "patch_size",
    "steps_per_epoch",
    "minutes",
    "seed",
)
"""Fields of a request that the trained weights depend on, in addition to the sampling and masks."""


@dataclass(frozen=True)
class PretrainRequest:
    """Options of a pre-training.

    Attributes:
        datasets: The datasets.
        name: Name of the new model.
        architecture: Name of the network; empty for that of `init`, or the default.
        hparams: Hyper-parameters of the network.
        init: A model, or a file of weights, to start from; None for random weights.
        allow_pickle: Whether the file of weights may execute code.
        labels: Structures to learn; empty for all.
        missing_label: Dataset -> meaning of a structure that a label file does not contain; the
            empty name stands for all other datasets.
        masking: `none` treats structures that a case does not annotate as background.
        temperature: Sampling temperature, see `sampling_probabilities`; infinity draws every
            dataset equally often, 1 draws every case equally often.
        validation_fraction: Fraction of the cases that are held out.
        spacing_mm: Voxel spacing (i, j, k) of all datasets; None keeps that of each dataset.
        window: Lower and upper bound for CT, in HU; None derives them from the data.
        patch_size: Size (i, j, k) of the crops, in voxels.
        training: Training configuration.
        steps_per_epoch: Training steps between two checkpoints.
        minutes: Time budget of the training.
        seed: Random seed.
        licence: Licence of the new weights.
        device: `auto`, `cpu` or `cuda`.
        workers: Processes that preprocess, and that draw crops for each rank.
        cluster: Address of a dask scheduler whose workers preprocess instead.
        fp16: Whether the weights are stored in half precision.
        keep: Number of checkpoints to keep.
        resume: Whether to fail if no checkpoint can be resumed.
        overwrite: Whether to discard an existing model or checkpoint of this name.
        shard: Whether parameters, gradients and moments are sharded over the ranks (FSDP2).
        compile: Whether to use `torch.compile`.
        checkpoint_activations: Whether to recompute activations in the backward pass.
    """

    datasets: tuple[Dataset, ...]
    name: str
    architecture: str = ""
    hparams: dict[str, Any] = field(default_factory=dict)
    init: FoundationModel | Path | None = None
    allow_pickle: bool = False
    labels: tuple[str, ...] = ()
    missing_label: Mapping[str, MissingLabel] = field(default_factory=dict)
    masking: Literal["annotated", "none"] = "annotated"
    temperature: float = math.inf
    validation_fraction: float = 0.05
    spacing_mm: Millimetres | None = None
    window: tuple[float, float] | None = None
    patch_size: Triple = (64, 64, 64)
    training: TrainingConfig = DEFAULT_TRAINING
    steps_per_epoch: int = 50
    minutes: float | None = None
    seed: int = 0
    licence: str = ""
    device: str = "cpu"
    workers: int = 1
    cluster: str = ""
    fp16: bool = False
    keep: int = 1
    resume: bool = False
    overwrite: bool = False
    shard: bool = False
    compile: bool = False
    checkpoint_activations: bool = False

    def settings(self) -> dict[str, str]:
        """Settings that the weights depend on, except data, initialisation and number of crops.

        Returns:
            Setting -> value in words, as stored with the model.
        """
        rules = [f"{name}={rule}" if name else rule for name, rule in self.missing_label.items()]
        values = {
            **{key: getattr(self, key) for key in _RELEVANT_FIELDS},
            "missing_label": rules,
            "temperature": self.temperature if math.isfinite(self.temperature) else "balanced",
            "components": _component_settings(self.training),
            "plugins": _component_packages(self.training),
            **self.training.model_dump(include={"epochs", "learning_rate", *TRAINING_KEYS}),
        }
        return {key: format_setting(value) for key, value in values.items()}


def _component_settings(training: TrainingConfig) -> list[str]:
    texts = []
    for group, values in training.components.items():
        for key, value in values.items():
            text = format_setting(value)
            texts.append(f"{group}.{key}={text}")
    return sorted(texts)


def _component_packages(training: TrainingConfig) -> list[str]:
    """Packages, other than fseft, that provide the loss, the augmentations and so on."""
    packages = set()
    for source in component_provenance(training):
        if source.distribution != "fseft":
            packages.add(f"{source.distribution} {source.version}")
    return sorted(packages)


def format_setting(value: object) -> str:
    """Formats the value of a setting as users write it.

    Examples:
        >>> format_setting((1.5, 1.5, 2.0)), format_setting(None), format_setting(0.01)
        ('1.5,1.5,2', 'default', '0.01')
    """
    if isinstance(value, list | tuple) and value:
        return ",".join(
            f"[{format_setting(item)}]" if isinstance(item, list | tuple) else format_setting(item)
            for item in value
        )
    return "default" if value in (None, "", (), []) else str(value).removesuffix(".0")


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separates settings of the training from hyper-parameters of the network.

    Args:
        settings: Setting -> value; former names are accepted.

    Returns:
        Fields of the training configuration, and everything else.

    Examples:
        >>> split_settings({"epochs": 5, "channels": [8, 16]})
        ({'epochs': 5}, {'channels': [8, 16]})
    """
    training: dict[str, Any] = {}
    hparams: dict[str, Any] = {}
    for key, value in settings.items():
        name = TrainingConfig.current_name(key)
        is_training = "." in name or name in (*OPTION_KEYS, *TRAINING_KEYS)
        (training if is_training else hparams)[name] = value
    return training, hparams


def check_request(
    request: PretrainRequest, architecture: Architecture, hparams: Mapping[str, Any]
) -> None:
    """Refuses options that cannot be trained with.

    Args:
        request: The pre-training.
        architecture: Provides the patches that the network accepts.
        hparams: Hyper-parameters of the network, including those of the initial weights.

    Raises:
        FseftError: An option is invalid, or two contradict each other.
    """
    check_model_name(request.name)
    if request.name in registry().registrations("model"):
        cause = f"the name {request.name!r} belongs to a model of a plugin, which would be hidden"
        raise FseftError(cause, hint="Choose another; `fseft models` lists the models.")
    if request.resume and request.overwrite:
        cause = "resume and overwrite exclude each other"
        raise FseftError(cause, hint="Choose one of them.")
    _check_patch_size(request.patch_size, patch_limits(architecture, hparams))
    _check_values(request)
    _check_regions(request.datasets)


def _check_patch_size(patch_size: Triple, limits: PatchLimits) -> None:
    suitable = limits.nearest(patch_size)
    if suitable != patch_size:
        raise FseftError(
            f"the patch size {format_setting(patch_size)} does not suit the network: sides "
            f"must be divisible by {format_setting(limits.divisor)} and at least "
            f"{format_setting(limits.minimum)}",
            hint=f"Use for example {format_setting(suitable)}.",
        )


def _check_regions(datasets: Sequence[Dataset]) -> None:
    """Refuses structures that overlap, before any image is read."""
    for dataset in datasets:
        if dataset.regions:
            names = ", ".join(dataset.regions)
            cause = f"has regions that overlap ({names}), which pretrain refuses"
            hint = "Give each structure one value in dataset.json."
            raise FseftError(cause, file=dataset.folder, hint=hint)


def _check_values(request: PretrainRequest) -> None:
    window, spacing_mm = request.window, request.spacing_mm
    cause = ""
    if window is not None and window[0] >= window[1]:
        cause = f"the window {format_setting(window)}: the first value must be the lower one"
    elif spacing_mm is not None and min(spacing_mm) <= 0:
        cause = f"the spacing {format_setting(spacing_mm)}: must be more than 0 mm"
    elif not request.temperature > 0:
        cause = f"the sampling temperature {request.temperature:g}: must be more than 0"
    if cause:
        raise FseftError(cause, hint="Choose another.")


def network_hparams(hparams: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """Validates hyper-parameters of the network.

    Args:
        hparams: Settings that are not part of the training configuration.
        architecture: The network that they are for.

    Returns:
        JSON values for the model card.

    Raises:
        FseftError: The architecture has no such hyper-parameter, or does not accept the value.
    """
    fields = architecture.config_class.model_fields
    unknown = sorted(hparams.keys() - fields.keys())
    if unknown:
        raise FseftError(
            f"neither the training nor the network has a setting {unknown[0]!r}",
            hint=did_you_mean(unknown[0], [*OPTION_KEYS, *TRAINING_KEYS, *fields]),
        )
    config = validate_hparams(architecture, hparams)
    return config.model_dump(mode="json", exclude_unset=True)
