"""The request of an adaptation, and its resolved configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fseft.learn.training.prefetch import derived_seed
from fseft.planning.options import plan_options
from fseft.planning.training_step import CROPS, MIN_CROPS, unlabelled_crops

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from fseft.adaptation.unlabelled_scans import UnlabelledScans
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.model_zoo.catalogue import FoundationModel, Weights
    from fseft.parallel import Workers
    from fseft.schemas import (
        ChannelMode,
        Dataset,
        Decision,
        Millimetres,
        PartMode,
        Plan,
        PlanOptions,
        ScanRange,
        Selection,
        TrainingSet,
        Triple,
    )
    from fseft.training_config import TrainingConfig
    from fseft.workspace import Workspace


TEACHER_DECAY = 0.99
"""Decay of the moving average of the weights that labels scans without labels."""


@dataclass(frozen=True)
class AdaptRequest:
    """The model, the data and the options of an adaptation; all names are resolved.

    Attributes:
        dataset: The dataset, with at least `k` labelled cases.
        model: The foundation model to start from.
        method: The method with its configuration and the training configuration.
        k: Number of labelled cases to train on.
        seed: Seed of everything random: training cases, initialisation, crops.
        labels: The structures to segment; empty for all of the dataset.
        cases: Draw the training cases from these only; empty for all labelled cases.
        mapping: Structure -> class of the model whose head row to start from, where the names
            differ.
        minutes: Training time budget; None for that of the plan, unless the epochs are set.
        half: Store the adapter in half precision.
        output: Folder of the run; None for the one of the workspace.
        memory_bytes: Memory that a training step may use; None for most of the device's memory.
        device: "auto", "cpu" or "cuda".
        spacing_mm: Spacing along the axes of the model; None for the plan's.
        patch_size: Patch size in voxels; None for the plan's.
        channels: How several channels reach a model that takes one; None for the best that the
            method allows.
        plan_name: Name of an alternative plan.
        workers: Processes, or the address of a dask scheduler.
        overwrite: Discard an existing run in the folder.
        reporters: Names of additional reporters.
        decisions: What the user left to the tool, with reasons.
        selection: How the method was chosen; None if the user chose it.
        init_seed: Seed of new weights; None for `seed`.
        seeds: Number of trainings with different seeds, which share the time budget.
        candidates: Methods to choose from, `method` first; no choice with less than two.
        origin: The adapter to start from, opened; None for the model itself.
        unlabelled: Scans without labels that the training uses as well.
        requested_method: Name of the method as the user wrote it, such as auto, for the default
            folder; empty for that of `method`.
    """

    dataset: Dataset
    model: FoundationModel
    method: ConfiguredMethod
    k: int
    seed: int = 0
    labels: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    minutes: float | None = None
    half: bool = False
    output: Path | None = None
    memory_bytes: int | None = None
    device: str = "auto"
    spacing_mm: Millimetres | None = None
    patch_size: Triple | None = None
    channels: ChannelMode | None = None
    plan_name: str = ""
    workers: Workers = 1
    overwrite: bool = False
    reporters: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    selection: Selection | None = None
    init_seed: int | None = None
    seeds: int = 1
    candidates: tuple[ConfiguredMethod, ...] = ()
    origin: OpenAdapter | None = None
    unlabelled: UnlabelledScans | None = None
    requested_method: str = ""

    @property
    def weights_seed(self) -> int:
        """Seed from which new weights are initialised; the adapter to start from keeps its own."""
        if self.origin is not None:
            return self.origin.manifest.init_seed
        return derived_seed(self.seed if self.init_seed is None else self.init_seed, "init")

    def folder(self, workspace: Workspace) -> Path:
        """Returns the folder of the run.

        By default, another one for each adapter to start from, and for scans without labels.
        """
        if self.output is not None:
            return self.output
        method = self.requested_method or self.method.name
        folder = workspace.run(self.dataset.name, self.model.name, method, self.k, self.seed)
        start = f"-from-{self.origin.sha256[:8]}" if self.origin else ""
        unlabelled = "-unlabelled" if self.unlabelled else ""
        return folder.with_name(f"{folder.name}{start}{unlabelled}")

    @property
    def plan_options(self) -> PlanOptions:
        """The values of the plan that the user sets.

        Features are extracted crop by crop: their number does not matter to the memory. Spacing and
        patch of an adapter to start from count as set.
        """
        training = self.method.training
        former = self.origin.manifest.preprocessing if self.origin else None
        return plan_options(
            spacing_mm=former.spacing_mm if former else self.spacing_mm,
            patch_size=self.patch_size or (former and former.patch_size),
            crops_per_step=None if self.method.caches_features else training.crops_per_step,
            minutes=self.minutes,
            memory_bytes=self.memory_bytes,
            device=self.device,
            channels=self.channels,
            unlabelled=self.unlabelled is not None,
        )


@dataclass(frozen=True)
class AdaptConfig:
    """The resolved configuration of an adaptation, made by `configure`.

    Attributes:
        request: What was requested.
        plan: How the dataset is processed for the model.
        channels: Names of the input channels.
        labels: Structure -> label value, by value.
        support: The cases to train on.
        labelled_in: Structure -> number of training cases in which it is labelled.
        matched: Structure -> class of the model whose head row it starts from.
        continued: Structure -> structure of the adapter to start from, whose head row is copied.
        weights: The verified weights of the model; None for random weights.
        case_contents: Content digests of the training cases, images and labels.
        image_digests: Content digests of the images of the training cases.
        scans: Voxel sizes and fields of view of the training cases.
        partly_annotated: Training case -> the part of it that is annotated, in words.
        annotated: Training case -> structures that it annotates; empty if all annotate all.
        regions: Structure -> voxel values that belong to it; empty if none overlap.
        unlabelled: Scans without labels, except for the training cases.
    """

    request: AdaptRequest
    plan: Plan
    channels: tuple[str, ...]
    labels: dict[str, int]
    support: TrainingSet
    labelled_in: dict[str, int] = field(default_factory=dict)
    matched: dict[str, str] = field(default_factory=dict)
    continued: dict[str, str] = field(default_factory=dict)
    weights: Weights | None = None
    case_contents: tuple[str, ...] = ()
    image_digests: tuple[str, ...] = ()
    scans: ScanRange | None = None
    partly_annotated: dict[str, str] = field(default_factory=dict)
    annotated: dict[str, frozenset[str]] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unlabelled: UnlabelledScans | None = None

    @property
    def voxel_values(self) -> tuple[int, ...]:
        """Values of label files that belong to structures, ascending; number 1, 2, ... of each."""
        values = set(self.labels.values())
        if self.regions:
            values = set().union(*self.regions.values())
        return tuple(sorted(values))

    @property
    def members(self) -> npt.NDArray[np.float32]:
        """Whether voxels of each number, 0 for the background, belong to each structure."""
        values = (0, *self.voxel_values)
        columns = []
        for name, value in self.labels.items():
            part = self.regions.get(name, (value,))
            columns.append(np.isin(values, part))
        return np.stack(columns, axis=1).astype(np.float32)

    @property
    def training(self) -> TrainingConfig:
        """The training configuration, with a moving average if it labels other scans."""
        training = self.request.method.training
        if self.unlabelled is None or training.ema_decay:
            return training
        return training.model_copy(update={"ema_decay": TEACHER_DECAY})

    @property
    def part_modes(self) -> dict[str, PartMode]:
        """Decoder and bottleneck -> how they are trained in addition to the method."""
        return self.request.method.part_modes

    @property
    def crops_per_step(self) -> int:
        """Crops per step: as set for the training, or else as planned.

        The fewest that a plan has if the steps of the whole network take long do not apply to
        cached features.
        """
        if self.training.crops_per_step is not None:
            return self.training.crops_per_step
        crops, by_hand = self.plan.crops_per_step, self.plan.options.crops_per_step
        is_cheap = self.request.method.caches_features and self.request.minutes is None
        return CROPS if is_cheap and crops == MIN_CROPS and not by_hand else crops

    @property
    def unlabelled_crops(self) -> int:
        """Crops of scans without labels per step."""
        return unlabelled_crops(self.crops_per_step) if self.unlabelled else 0

    @property
    def backbone_sha256(self) -> str:
        """The sha256 of the weights that the adapter requires; empty for random weights."""
        return self.weights.sha256 if self.weights else ""
