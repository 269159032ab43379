"""Specs: what the hooks of a plugin return. They name a component, which is imported when used."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import field
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fseft.schemas import Config, ModelCard

STRICT = ConfigDict(extra="forbid", defer_build=True)
"""Specs reject unknown fields."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Preset:
    """Named settings of a method, for `--set preset=NAME`; other settings take precedence."""

    settings: Mapping[str, Any]
    """Values by key of the method's configuration and of `fseft.training_config.TrainingConfig`."""
    with_decoder: Mapping[str, Any] = field(default_factory=dict)
    """Settings that replace these where the decoder is trained as well."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spec:
    """A named component of a plugin. The types of its fields are validated."""

    name: str
    """Lower case letters, digits, `.`, `_`, `-`; unique per kind."""
    factory: str
    """`package.module:Attribute`, imported only when the name is selected."""
    summary: str = ""
    """A sentence for listings."""
    reference: str = ""
    """The publication, as a citation or a URL."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConfigurableSpec(Spec):
    """A component with settings, as `--set loss.alpha=0.3`, or as `--set alpha=0.3` of a method."""

    config: type[Config] = Config
    """The settings; losses, augmentations, schedules and optimizers get them as keywords."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MethodSpec(ConfigurableSpec):
    """A fine-tuning method. Factory: a class as `fseft.learn.adapters.method.Method`."""

    access: Literal["black-box", "white-box"] = "white-box"
    """`black-box` methods use only the output features: the whole backbone stays frozen."""
    needs_model: bool = True
    """Whether the method requires pre-trained weights."""
    trains: bool = True
    """Whether the method has trainable parameters."""
    tunes: tuple[Literal["encoder", "bottleneck", "decoder"], ...] = ()
    """Parts whose weights the method trains in full; options that contradict it are rejected."""
    supports_regions: bool = True
    """Whether structures may overlap; a method that validates on labels of structures needs one
    structure per voxel."""
    recommended_for: str = ""
    """The situation that the method is a first choice for, in a few words; empty for most."""
    presets: Mapping[str, Preset] = field(default_factory=dict)
    """Named settings, such as those of the publication."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ArchitectureSpec(ConfigurableSpec):
    """A network architecture; `config` describes its hyper-parameters, `hparams` in a model card.

    Factory: a class as `fseft.learn.networks.roles.Architecture`, whose `config_class` is `config`.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointSpec:
    """The public checkpoint of a model: its file, and how its tensors map to the network.

    Patterns are regular expressions, searched for in tensor names after prefixes such as `module.`
    are stripped.
    """

    file: str
    """The file name at the owner's host."""
    url: str = ""
    """The download address; empty if the file must be downloaded manually from the card's page."""
    bytes: int | None = None
    """The size of the file."""
    sha256: str = ""
    """The digest of the file in lower case hexadecimal; empty if it is not published."""
    companions: tuple[tuple[str, str], ...] = ()
    """Name and sha256 of files that belong to it, at the same address and in the same folder."""
    read: str = ""
    """`package.module:function` of the path that returns the content of the file, where it is
    neither safetensors nor a checkpoint of PyTorch."""
    marks: tuple[str, ...] = ()
    """Patterns that identify the checkpoint: each matches a tensor name in the file."""
    foreign: tuple[str, ...] = ()
    """Patterns that rule it out: a tensor name matches in files of models with the same `marks`."""
    unwrap: tuple[str, ...] = ()
    """Keys of nested dictionaries that contain the tensors, if not the usual ones."""
    renames: tuple[tuple[str, str], ...] = ()
    """Pattern and replacement, in order, from tensor names of the file to those of the network."""
    ignored: tuple[str, ...] = ()
    """Patterns of tensors that the network does not need, such as heads of a pretext task."""
    convert: str = ""
    """`package.module:function` that converts the renamed tensors, where renaming is not enough."""
    card: str = ""
    """`package.module:function` of the spec's card, the path and the content of the file.

    Returns the model's card, where network, classes or preprocessing differ between files. The
    result at import takes precedence over the spec's card.
    """
    covers: str = ""
    """Pattern of the network's tensors that the file must contain; others start randomly."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FoundationModelSpec(Spec):
    """A pre-trained network.

    Factory: a function without arguments that returns the path of the weights (safetensors), for
    weights inside the package. Without a factory, `fseft models import` converts the checkpoint.
    """

    card: ModelCard
    """Architecture, classes, preprocessing and licence."""
    factory: str = ""
    checkpoint: CheckpointSpec | None = None
    """The public file of the weights."""
    recommended_for: str = ""
    """What the model is a first choice for, in a few words; empty for most."""

    @classmethod
    def public(
        cls, card: ModelCard, checkpoint: CheckpointSpec, recommended_for: str = ""
    ) -> FoundationModelSpec:
        """Returns the spec of a model whose weights are hosted by their owner.

        Args:
            card: Provides name, summary and reference.
            checkpoint: The public file.
            recommended_for: What the model is a first choice for.
        """
        named = {"name": card.name, "summary": card.summary, "reference": card.reference}
        return cls(card=card, checkpoint=checkpoint, recommended_for=recommended_for, **named)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReaderSpec(Spec):
    """A dataset layout. Factory: a class with the protocol `Reader`, called without arguments."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReporterSpec(Spec):
    """An observer of runs, selected by name.

    Factory: a function of the run's folder (which may not exist yet) that returns an object with
    observer hooks.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MetricSpec(Spec):
    """A score of a structure in a case. Factory: a function of a `fseft.metrics.masks.MaskPair`.

    The function returns a number, or None where the metric is undefined. It is called where both
    masks have voxels; `missing` and `both_empty` decide the other cases.
    """

    title: str
    """Heading of the column in tables."""
    direction: Literal["higher", "lower", "zero"]
    """Which values are better; `zero` for a signed difference."""
    missing: float | Literal["image-diagonal", "computed"]
    """Value where only one of prediction and reference has the structure: a number, the diagonal of
    the image in mm, or the function's value on an empty and a filled mask."""
    both_empty: float | None = None
    """Value where neither has the structure; None leaves the case out of means."""
    unit: str = ""
    """Unit of the values, as in `mm`."""
    digits: int = 3
    """Decimal places in tables."""
    note: str = ""
    """Explanation below tables; `{tolerance_mm}` is replaced. Default: the unit."""

    @property
    def key(self) -> str:
        """Key of the values in files and results: the name, and the unit if any, as `hd_mm`."""
        name = self.name.replace("-", "_").replace(".", "_")
        return f"{name}_{self.unit}" if self.unit else name


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossSpec(ConfigurableSpec):
    """A segmentation loss, for `--set loss=NAME`.

    Factory: a function of `fseft.learn.training.losses.Predictions` that returns the loss of each
    sample and structure, a tensor (G, S).
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationSpec(ConfigurableSpec):
    """An augmentation, for `--set augment=NAME,NAME`.

    Factory: a class as `fseft.learn.sampling.augmentation.Augmentation`, or as
    `SpatialAugmentation` of the same module, called without arguments.
    """

    probability: float = 0.2
    """Fraction of the crops that are augmented, 0 to 1."""
    spatial: bool = False
    """Whether it moves sampling coordinates; all that do share one interpolation."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScheduleSpec(ConfigurableSpec):
    """A learning-rate schedule, for `--set schedule=NAME`.

    Factory: a function of the progress of the training, 0 to 1, and of the fraction of it that
    warms up. It returns the factor of the learning rate.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlannerSpec(Spec):
    """A planner of spacing and patch, for `fseft plan --planner NAME`.

    Factory: a function of a `fseft.planning.spacing.GridProblem` that returns a `Grid`.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerSpec(ConfigurableSpec):
    """An optimizer, for `--set optimizer=NAME`.

    Factory: a function of parameter groups and a weight decay that returns a
    `torch.optim.Optimizer`.
    """

    learning_rate_factor: float = 1.0
    """Multiple of a method's default learning rate, which suits AdamW."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FileFormatSpec(Spec):
    """A file format that may need packages which fseft does not install by default."""

    packages: tuple[str, ...] = ()
    """Importable packages that the format needs."""
    extra: str = ""
    """What pip installs them by, as in `fseft[export]`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExporterSpec(FileFormatSpec):
    """A file format of adapted networks, for `fseft export --to NAME`.

    Factory: a function of the merged network in evaluation mode, the `fseft.schemas.Manifest` of
    the adapter, and an empty folder to write to. It raises `FseftError` if the format cannot
    express the network.
    """


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FormatSpec(FileFormatSpec):
    """A file format of segmentations, for `fseft predict --format NAME`.

    Factory: a function of a `fseft.volume.segmentation.Segmentation` and the path to write, which
    does not exist yet; the folder of the path does.
    """

    suffix: str
    """The path of a case after its name: `.seg.nrrd`, or `/segmentations` for a folder."""
    needs_series: bool = False
    """Whether the scan must be a DICOM series, to whose slices the file refers."""
