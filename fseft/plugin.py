"""The plugin interface: hooks, and the specs that they return. Imports no torch.

A plugin is an installed package with an entry point in the group `fseft`, which names a module with
functions marked `@hookimpl`. Hooks return *specs*: a name, a summary, a pydantic configuration and
a lazy `factory="package.module:Attribute"`, imported only when the name is selected, so that
listing is fast. Installing a plugin adds names; only the plan or the command line selects one.

Example:
    A module with a method, registered as `[project.entry-points.fseft] mine = "my_package.plugin"`:

    >>> @hookimpl
    ... def fseft_methods():
    ...     return [MethodSpec(name="mine", factory="my_package.method:Mine", summary="My method.")]
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fseft.schemas import Case, Config, Dataset, ModelCard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import typer

__all__ = [
    "API_VERSION",
    "ArchitectureSpec",
    "AugmentationSpec",
    "Case",
    "CheckpointSpec",
    "Config",
    "ConfigurableSpec",
    "Dataset",
    "ExporterSpec",
    "FoundationModelSpec",
    "LossSpec",
    "MethodSpec",
    "MetricSpec",
    "ModelCard",
    "OptimizerSpec",
    "PlannerSpec",
    "Preset",
    "ReaderSpec",
    "ReporterSpec",
    "ScheduleSpec",
    "Spec",
    "hookimpl",
    "hookspec",
]

API_VERSION = 1
"""Incremented only on an incompatible change. A plugin may require one as `FSEFT_API = 1`."""

hookspec = pluggy.HookspecMarker("fseft")
hookimpl = pluggy.HookimplMarker("fseft")


STRICT = ConfigDict(extra="forbid")
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

    @classmethod
    def public(cls, card: ModelCard, checkpoint: CheckpointSpec) -> FoundationModelSpec:
        """Returns the spec of a model whose weights are hosted by their owner.

        Args:
            card: Provides name, summary and reference.
            checkpoint: The public file.
        """
        return cls(
            name=card.name,
            summary=card.summary,
            reference=card.reference,
            card=card,
            checkpoint=checkpoint,
        )


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
class ExporterSpec(Spec):
    """A file format of adapted networks, for `fseft export --to NAME`.

    Factory: a function of the merged network in evaluation mode, the `fseft.schemas.Manifest` of
    the adapter, and an empty folder to write to. It raises `FseftError` if the format cannot
    express the network.
    """

    packages: tuple[str, ...] = ()
    """Importable packages that the format needs."""
    extra: str = ""
    """What pip installs them by, as in `fseft[export]`."""


class Reader(Protocol):
    """A reader of a dataset layout, as returned by the factory of a `ReaderSpec`."""

    def detects(self, folder: Path) -> bool:
        """Returns whether a folder has this layout, by its file names and `dataset.json` only."""

    def read(self, folder: Path) -> Dataset:
        """Lists the cases of a folder without opening an image.

        Raises:
            FseftError: The folder does not follow the layout.
        """


class RegistrationHooks(Protocol):
    """Hooks that are called once at start-up. An exception marks its plugin as broken."""

    @hookspec
    def fseft_methods(self) -> Iterable[MethodSpec]:
        """Returns methods for `fseft adapt --method NAME`."""

    @hookspec
    def fseft_foundation_models(self) -> Iterable[FoundationModelSpec]:
        """Returns pre-trained networks for `--model NAME`."""

    @hookspec
    def fseft_architectures(self) -> Iterable[ArchitectureSpec]:
        """Returns network architectures."""

    @hookspec
    def fseft_dataset_readers(self) -> Iterable[ReaderSpec]:
        """Returns dataset layouts; the one that detects a folder reads it."""

    @hookspec
    def fseft_reporters(self) -> Iterable[ReporterSpec]:
        """Returns observers for `fseft adapt --reporter NAME`."""

    @hookspec
    def fseft_metrics(self) -> Iterable[MetricSpec]:
        """Returns metrics for `fseft evaluate --metrics NAME`."""

    @hookspec
    def fseft_losses(self) -> Iterable[LossSpec]:
        """Returns losses for `--set loss=NAME`."""

    @hookspec
    def fseft_augmentations(self) -> Iterable[AugmentationSpec]:
        """Returns augmentations for `--set augment=NAME,NAME`."""

    @hookspec
    def fseft_schedules(self) -> Iterable[ScheduleSpec]:
        """Returns learning-rate schedules for `--set schedule=NAME`."""

    @hookspec
    def fseft_optimizers(self) -> Iterable[OptimizerSpec]:
        """Returns optimizers for `--set optimizer=NAME`."""

    @hookspec
    def fseft_exporters(self) -> Iterable[ExporterSpec]:
        """Returns file formats for `fseft export --to NAME`."""

    @hookspec
    def fseft_planners(self) -> Iterable[PlannerSpec]:
        """Returns planners for `fseft plan --planner NAME`."""

    @hookspec
    def fseft_commands(self, app: typer.Typer) -> None:
        """Adds commands to the application (`app.command()` or `app.add_typer(...)`)."""


class ObserverHooks:
    """Hooks of reporters. Results are ignored; an exception is logged and never ends the run."""

    @hookspec
    def fseft_run_start(self, run: Any, epoch: int) -> None:
        """Called before training starts or resumes at `epoch`; `run` is a `fseft.schemas.Run`."""

    @hookspec
    def fseft_epoch_end(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        """Called after an epoch; `metrics` contains `loss`, `learning_rate` and `seconds`."""

    @hookspec
    def fseft_checkpoint_saved(self, run: Any, path: Path) -> None:
        """Called after a checkpoint, or at the end the adapter, was written to `path`."""

    @hookspec
    def fseft_run_end(self, run: Any, outcome: str) -> None:
        """Called at the end of a run; `outcome` is `finished`, or the line of the error."""
