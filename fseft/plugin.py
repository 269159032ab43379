"""The contract with plugins: hooks, and the specs that they return. Imports no torch.

A plugin is an installed package with an entry point in the group `fseft`, naming a module with functions
marked `@hookimpl`. Hooks return *specs*: a name, a summary, a pydantic config and a lazy `factory="pkg.mod:Attr"`
that is imported only when the name is chosen, so that listing costs nothing. Installed is not active: a package
adds names; only the plan or the command line picks one.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pluggy
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from fseft.schemas import Case, Dataset, FrozenModel, ModelCard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import typer

__all__ = [
    "API_VERSION",
    "ArchitectureSpec",
    "Case",
    "CheckpointSpec",
    "Config",
    "Dataset",
    "FoundationModelSpec",
    "MethodSpec",
    "ModelCard",
    "Preset",
    "ReaderSpec",
    "ReporterSpec",
    "Spec",
    "hookimpl",
    "hookspec",
]

API_VERSION = 1
"""Raised only on an incompatible change; a plugin may state the one it needs as `FSEFT_API = 1`."""

hookspec = pluggy.HookspecMarker("fseft")
hookimpl = pluggy.HookimplMarker("fseft")


STRICT = ConfigDict(extra="forbid")
"""A key that there is not is refused where a spec is made."""


class Config(FrozenModel):
    """Base of a method's configuration; its fields are the keys of `--set key=value`; `preset` is taken."""

    model_config = ConfigDict(allow_inf_nan=False)

    @property
    def solves(self) -> bool:
        """Whether the method finds what it trains at once, on kept features (`Adapted.solve`)."""
        return False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Preset:
    """Settings under one name, for `--set preset=NAME`; what is set beside it wins."""

    settings: Mapping[str, Any]
    """Keys of the method's configuration and of `fseft.training_config.Recipe`."""
    with_decoder: Mapping[str, Any] = field(default_factory=dict)
    """What differs where the decoder is trained too."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Spec:
    """A named thing that a plugin offers; a field of a wrong type is refused where the spec is made."""

    name: str
    """Lower case letters, digits, `.`, `_`, `-`; unique per kind."""
    factory: str
    """`package.module:Attribute`, imported only when the name is chosen."""
    summary: str = ""
    config: type[Config] = Config
    reference: str = ""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MethodSpec(Spec):
    """A strategy that turns a network into an adapted one. Factory: `fseft.learn.adapters.method.Method`."""

    access: Literal["black-box", "white-box"] = "white-box"
    """`black-box` methods touch the output features only: the whole backbone stays frozen."""
    needs_model: bool = True
    """Whether the method starts from pre-trained weights."""
    trains: bool = True
    tunes: tuple[Literal["encoder", "bottleneck", "decoder"], ...] = ()
    """Parts of which the method trains every weight: an option that says otherwise is refused."""
    presets: Mapping[str, Preset] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ArchitectureSpec(Spec):
    """Builds a network and knows its roles. Factory: `fseft.learn.networks.roles.Architecture`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CheckpointSpec:
    """The public file with a model's weights: what it is called, and how it names its tensors.

    Patterns are regular expressions that are searched for in names, after `module.` and the like are stripped.
    """

    file: str
    """Its name where the owner hosts it."""
    url: str = ""
    """Of the file itself; empty where it can only be got by hand, from the page that the card names."""
    bytes: int | None = None
    marks: tuple[str, ...] = ()
    """Each is in some name of the file, as it is or stripped: a file is known by its content."""
    foreign: tuple[str, ...] = ()
    """None is in any name of the file: the marks of models that have all of this one's."""
    unwrap: tuple[str, ...] = ()
    """Keys under which the tensors lie, where they are not the usual ones."""
    renames: tuple[tuple[str, str], ...] = ()
    """Pattern and replacement, in order: from the file's names to the network's."""
    ignored: tuple[str, ...] = ()
    """Tensors that the network has no use for, such as heads of the pre-training's task."""
    convert: str = ""
    """`package.module:function` from the tensors, after the renames, to the network's; where names are not enough."""
    card: str = ""
    """`package.module:function` from the entry's card, the file's path and what it holds to the model's card; where
    the network, its classes or its contract differ from file to file. What `import` got of it goes before the entry."""
    covers: str = ""
    """Tensors of the network that the file must hold, every one; the others start from random weights."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FoundationModelSpec(Spec):
    """A pre-trained network.

    Factory: a function `() -> Path` of its weights (safetensors), for weights that come with the package; without
    one, the weights are those that `fseft models import` made of the checkpoint.
    """

    card: ModelCard
    factory: str = ""
    checkpoint: CheckpointSpec | None = None

    @classmethod
    def public(cls, card: ModelCard, checkpoint: CheckpointSpec) -> FoundationModelSpec:
        """A model whose owner hosts the weights; the card says all else."""
        return cls(
            name=card.name,
            summary=card.summary,
            reference=card.reference,
            card=card,
            checkpoint=checkpoint,
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReaderSpec(Spec):
    """A dataset layout. Factory: an object of the protocol `Reader`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReporterSpec(Spec):
    """An observer of runs, switched on by name. Factory: `(run_folder: Path) -> object` with observer hooks.

    The folder need not be there yet when the factory is called.
    """


class Reader(Protocol):
    """What a `ReaderSpec.factory` gives."""

    def detects(self, folder: Path) -> bool:
        """Whether the folder has this layout; looks at names and at `dataset.json` only."""

    def read(self, folder: Path) -> Dataset:
        """List the cases; opens no image.

        Raises:
            FseftError: The layout is broken.
        """


class RegistrationHooks(Protocol):
    """Called once for each plugin, by itself: an error in one leaves the others alone."""

    @hookspec
    def fseft_methods(self) -> Iterable[MethodSpec]:
        """Methods for `fseft adapt --method NAME`."""

    @hookspec
    def fseft_foundation_models(self) -> Iterable[FoundationModelSpec]:
        """Pre-trained networks for `--model NAME`."""

    @hookspec
    def fseft_architectures(self) -> Iterable[ArchitectureSpec]:
        """Networks with role maps."""

    @hookspec
    def fseft_dataset_readers(self) -> Iterable[ReaderSpec]:
        """Dataset layouts; the first that detects a folder reads it."""

    @hookspec
    def fseft_reporters(self) -> Iterable[ReporterSpec]:
        """Observers for `fseft adapt --reporter NAME`."""

    @hookspec
    def fseft_commands(self, app: typer.Typer) -> None:
        """Add commands to the application (`app.command()` or `app.add_typer(...)`)."""


class ObserverHooks:
    """Called on the reporters that were switched on; results are ignored and errors never end a run."""

    @hookspec
    def fseft_run_start(self, run: Any, epoch: int) -> None:
        """A run begins, or goes on at `epoch` after a kill. `run` is a `fseft.schemas.Run`."""

    @hookspec
    def fseft_epoch_end(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch is done; `metrics` holds `loss`, `learning_rate` and `seconds`."""

    @hookspec
    def fseft_checkpoint_saved(self, run: Any, path: Path) -> None:
        """A checkpoint, or at the end the adapter, lies at `path`."""

    @hookspec
    def fseft_run_end(self, run: Any, outcome: str) -> None:
        """The run ended: `finished`, or the error's line."""
