"""Hooks: what a plugin may implement, to register components or to observe runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import typer

    from fseft.plugin.specs import (
        ArchitectureSpec,
        AugmentationSpec,
        ExporterSpec,
        FormatSpec,
        FoundationModelSpec,
        LossSpec,
        MethodSpec,
        MetricSpec,
        OptimizerSpec,
        PlannerSpec,
        ReaderSpec,
        ReporterSpec,
        ScheduleSpec,
    )
    from fseft.schemas import Dataset

hookspec = pluggy.HookspecMarker("fseft")
hookimpl = pluggy.HookimplMarker("fseft")


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
    def fseft_formats(self) -> Iterable[FormatSpec]:
        """Returns file formats of segmentations for `fseft predict --format NAME`."""

    @hookspec
    def fseft_planners(self) -> Iterable[PlannerSpec]:
        """Returns planners for `fseft plan --planner NAME`."""

    @hookspec
    def fseft_commands(self, app: typer.Typer) -> None:
        """Adds commands to the application (`app.command()` or `app.add_typer(...)`)."""


DICE_METRIC = "dice/"
"""Prefix of the Dice of a structure in the metrics of an epoch."""


class ObserverHooks:
    """Hooks of reporters. Results are ignored; an exception is logged and never ends the run."""

    @hookspec
    def fseft_run_start(self, run: Any, epoch: int) -> None:
        """Called before training starts or resumes at `epoch`; `run` is a `fseft.schemas.Run`."""

    @hookspec
    def fseft_epoch_end(self, run: Any, epoch: int, metrics: dict[str, float]) -> None:
        """Called after an epoch.

        Args:
            run: A `fseft.schemas.Run`.
            epoch: Number of the epoch, from 1.
            metrics: `loss`, `learning_rate`, `seconds`, and `dice/STRUCTURE`, the Dice on the crops
                of the last steps, for the structures that have occurred in them.
        """

    @hookspec
    def fseft_checkpoint_saved(self, run: Any, path: Path) -> None:
        """Called after a checkpoint, or at the end the adapter, was written to `path`."""

    @hookspec
    def fseft_run_end(self, run: Any, outcome: str) -> None:
        """Called at the end of a run; `outcome` is `finished`, or the line of the error."""
