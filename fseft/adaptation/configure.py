"""The configuration of an adaptation: everything that is decided before any training."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from fseft.anatomy.vocabulary import has_sides, match_classes
from fseft.errors import FseftError, IncompatibleError, did_you_mean, pluralise
from fseft.learn.training.prefetch import derived_seed
from fseft.planning.fingerprinting import TrainingLabels
from fseft.planning.options import plan_options
from fseft.planning.plan import measure, plan_adaptation
from fseft.planning.training_step import CROPS, MIN_CROPS, steps_in_time
from fseft.registry import registry
from fseft.schemas import TrainingSet
from fseft.volume.image import content_digest
from fseft.volume.scan_range import scan_range

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from fseft.experiment.callbacks import Callbacks
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.model_zoo.catalogue import FoundationModel, Weights
    from fseft.parallel import Workers
    from fseft.schemas import (
        Dataset,
        Fingerprint,
        Millimetres,
        PartMode,
        Plan,
        PlanOptions,
        ScanRange,
        Triple,
    )
    from fseft.training_config import TrainingConfig
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


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
        plan_name: Name of an alternative plan.
        workers: Processes, or the address of a dask scheduler.
        overwrite: Discard an existing run in the folder.
        reporters: Names of additional reporters.
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
    plan_name: str = ""
    workers: Workers = 1
    overwrite: bool = False
    reporters: tuple[str, ...] = ()

    @property
    def plan_options(self) -> PlanOptions:
        """The values of the plan that the user sets.

        Features are extracted crop by crop: their number does not matter to the memory.
        """
        training = self.method.training
        return plan_options(
            spacing_mm=self.spacing_mm,
            patch_size=self.patch_size,
            crops_per_step=None if self.method.caches_features else training.crops_per_step,
            minutes=self.minutes,
            memory_bytes=self.memory_bytes,
            device=self.device,
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
        matched: Structure -> class of the model whose head row it starts from.
        weights: The verified weights of the model; None for random weights.
        case_contents: Content digests of the training cases, images and labels.
        image_digests: Content digests of the images of the training cases.
        scans: Voxel sizes and fields of view of the training cases.
    """

    request: AdaptRequest
    plan: Plan
    channels: tuple[str, ...]
    labels: dict[str, int]
    support: TrainingSet
    matched: dict[str, str] = field(default_factory=dict)
    weights: Weights | None = None
    case_contents: tuple[str, ...] = ()
    image_digests: tuple[str, ...] = ()
    scans: ScanRange | None = None

    @property
    def training(self) -> TrainingConfig:
        """The training configuration."""
        return self.request.method.training

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
    def backbone_sha256(self) -> str:
        """The sha256 of the weights that the adapter requires; empty for random weights."""
        return self.weights.sha256 if self.weights else ""


def configure(
    request: AdaptRequest, workspace: Workspace, callbacks: Callbacks | None = None
) -> AdaptConfig:
    """Decides everything before a network is built: plan, structures, training cases, head rows.

    Warnings of the plan are logged.

    Args:
        request: What to adapt, to which data, and how.
        workspace: Where fingerprint and plan are stored.
        callbacks: Observe the fingerprinting.

    Raises:
        FseftError: Names, settings, structures or cases that do not fit together, or a broken case.
    """
    _check_request(request)
    weights = request.model.weights if request.method.spec.needs_model else None
    for name in request.reporters:
        registry().resolve("reporter", name)
    fingerprint = measure(
        request.dataset, request.model, workspace, workers=request.workers, callbacks=callbacks
    )
    labels = select_labels(fingerprint, request.labels)
    matched = _match_head_rows(request, labels, fingerprint)
    _check_structures(request, list(labels), matched)
    support = _training_cases(request, labels, fingerprint)
    plan = _plan(request, workspace, fingerprint, support, labels)
    cases = support.cases
    images = {case.name: case.images for case in request.dataset.cases if case.name in cases}
    return AdaptConfig(
        request=_within_budget(request, plan),
        plan=plan,
        channels=fingerprint.channels,
        labels=labels,
        support=support,
        matched=matched,
        weights=weights,
        case_contents=tuple(case.content for case in fingerprint.cases if case.name in cases),
        image_digests=tuple(map(content_digest, images.values())),
        scans=scan_range(fingerprint.cases, cases),
    )


def _plan(
    request: AdaptRequest,
    workspace: Workspace,
    fingerprint: Fingerprint,
    support: TrainingSet,
    labels: Collection[str],
) -> Plan:
    """Plans the training on the training cases, and logs the warnings of the plan."""
    plan = plan_adaptation(
        request.dataset,
        request.model,
        workspace,
        fingerprint,
        TrainingLabels(frozenset(support.cases), frozenset(labels)),
        request.plan_options,
        request.plan_name,
    )
    for warning in plan.warnings:
        logger.warning("%s", warning)
    return plan


def _within_budget(request: AdaptRequest, plan: Plan) -> AdaptRequest:
    """Applies the time budget of the plan, where neither minutes nor epochs are set.

    A default budget becomes a number of epochs, with which a repeated run has the same result. It
    does not limit steps on cached features, which cost little.
    """
    training = request.method.training
    if request.minutes or plan.minutes is None or "epochs" in training.model_fields_set:
        return request
    if plan.options.minutes is not None:
        return replace(request, minutes=plan.minutes)
    if request.method.caches_features:
        return request
    steps = steps_in_time(plan, training.crops_per_step or plan.crops_per_step)
    epochs = min(training.epochs, ceil(steps / request.k))
    shorter = training.model_copy(update={"epochs": epochs})
    return replace(request, method=replace(request.method, training=shorter))


def _match_head_rows(
    request: AdaptRequest, labels: Mapping[str, int], fingerprint: Fingerprint
) -> dict[str, str]:
    """Matches structures with classes of the model, from whose head rows they start."""
    spec, card = request.method.spec, request.model.card
    # Only a whole network has a head with rows to copy; a text-driven head is used unchanged.
    has_rows = spec.needs_model and (card.scope == "network" or not spec.trains)
    classes = card.classes if has_rows else ()
    return match_classes(list(labels), classes, dict(request.mapping), fingerprint.meanings)


def _training_cases(
    request: AdaptRequest, labels: Mapping[str, int], fingerprint: Fingerprint
) -> TrainingSet:
    """Draws the training cases, and warn of structures that none of them shows."""
    volumes = {case.name: case.volumes_mm3 for case in fingerprint.cases if case.volumes_mm3}
    cases = select_support(list(volumes), request.k, request.seed, request.cases)
    shown = {structure for case in cases for structure in volumes[case]}
    if absent := [name for name in labels if name not in shown]:
        logger.warning("no training case shows %s: it cannot be learned", ", ".join(absent))
    return TrainingSet(
        dataset=fingerprint.dataset,
        k=request.k,
        seed=request.seed,
        cases=cases,
    )


def select_support(
    labelled: Sequence[str], k: int, seed: int, pool: Sequence[str] = ()
) -> tuple[str, ...]:
    """Draws k of the labelled cases in a random order, so that a smaller k is part of a larger one.

    Args:
        labelled: Names of all labelled cases.
        k: Number of cases to draw.
        seed: Seed of the order.
        pool: Draw from these cases only; empty for all.

    Returns:
        The names of the cases, in the order in which they were drawn.

    Raises:
        FseftError: k is larger than the number of cases, or the pool names a case that is not
            labelled.

    Examples:
        >>> cases = ["a", "b", "c", "d"]
        >>> select_support(cases, 3, seed=0)[:2] == select_support(cases, 2, seed=0)
        True
    """
    for name in pool:
        if name not in labelled:
            hint = did_you_mean(name, list(labelled))
            raise FseftError("is not a labelled case of the dataset", case=name, hint=hint)
    candidates = sorted(set(pool) or set(labelled))
    count = len(candidates)
    if not 1 <= k <= count:
        verb = "is" if count == 1 else "are"
        raise FseftError(
            f"k is {k}, but there {verb} {pluralise(count, 'labelled case')} to choose from",
            hint=f"Use k between 1 and {count}." if count else "Add labels to the dataset.",
        )
    order = np.random.default_rng(derived_seed(seed, "support")).permutation(count)
    return tuple(candidates[index] for index in order[:k])


def select_labels(fingerprint: Fingerprint, structures: Sequence[str]) -> dict[str, int]:
    """Selects the structures to segment that at least one case shows.

    Args:
        fingerprint: Of the dataset.
        structures: Names of structures; empty for all.

    Returns:
        Structure -> label value, by value.

    Raises:
        FseftError: A name is unknown, or no case shows the structure.
    """
    for name in structures:
        if name not in fingerprint.labels:
            raise FseftError(
                f"the dataset has no structure {name!r}",
                hint=did_you_mean(name, list(fingerprint.labels)),
            )
    selected = {n: v for n, v in fingerprint.labels.items() if not structures or n in structures}
    present = {name for name in selected if fingerprint.classes[name].cases}
    absent = sorted(selected.keys() - present)
    if structures and absent:
        raise FseftError(
            f"the structure {absent[0]!r} is in no case", hint="Leave it out of the labels."
        )
    if not present:
        raise FseftError(
            "no case has a label with a structure in it", hint="Add labels to the dataset."
        )
    by_value = sorted(selected.items(), key=lambda item: item[1])
    return {name: value for name, value in by_value if name in present}


def _check_request(request: AdaptRequest) -> None:
    """Refuses cases that do not exist, and a model that lacks what the method starts from.

    Called before the weights are hashed and the dataset is measured, which may take long.
    """
    labelled = [case.name for case in request.dataset.labelled]
    if labelled:
        select_support(labelled, request.k, request.seed, request.cases)
    spec, card = request.method.spec, request.model.card
    if card.contract.assumed_orientation and not spec.trains:
        raise IncompatibleError(
            f"the axes of the training scans of {card.name!r} are unknown, so that it could see "
            "scans turned or mirrored",
            hint="Import it again with `like`, one of its training scans, or `orientation`.",
        )
    if spec.needs_model and not request.model.pretrained:
        raise IncompatibleError(
            f"the method {spec.name!r} starts from a pre-trained model, and the model is none",
            hint="Use the method scratch, or a model that `fseft models` lists.",
        )
    if spec.access == "black-box" and spec.needs_model and card.scope == "encoder":
        raise IncompatibleError(
            f"the weights of {card.name!r} are an encoder only: its output features would be "
            f"random, and the method {spec.name!r} learns from nothing else",
            hint="Use a white-box method, such as lora, or another model.",
        )


def _check_structures(
    request: AdaptRequest, structures: list[str], matched: Mapping[str, str]
) -> None:
    """Refuses structures that method, model and augmentation do not allow."""
    if not request.method.spec.trains and not matched:
        raise IncompatibleError(
            f"the model {request.model.name!r} has no class for the structures "
            f"{', '.join(structures)}",
            hint="Use a method that trains, such as lora.",
        )
    if request.method.training.mirror and has_sides(structures):
        raise FseftError(
            "mirror=true would swap left and right structures", hint="Leave mirroring off."
        )
