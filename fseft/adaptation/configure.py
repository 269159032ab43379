"""The configuration of an adaptation: everything that is decided before any training."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

from fseft.adaptation.continuation import check_origin, match_rows, with_former_preprocessing
from fseft.adaptation.differences import SUPPORT
from fseft.adaptation.previous_run import checkpoints
from fseft.adaptation.request import AdaptConfig
from fseft.adaptation.selection import count_cases, select_labels, select_support
from fseft.anatomy.vocabulary import has_sides, match_classes
from fseft.errors import FseftError, IncompatibleError
from fseft.planning.channels import check_channels, choose_for_method, for_method
from fseft.planning.fingerprinting import TrainingLabels
from fseft.planning.label_presence import assumed_absent, incomplete_annotations
from fseft.planning.plan import measure, plan_adaptation
from fseft.planning.training_step import steps_in_time, warn_of_few_steps
from fseft.registry import registry
from fseft.schemas import Run, TrainingSet
from fseft.volume.image import content_digest
from fseft.volume.scan_range import scan_range
from fseft.workspace import read_document, require_folder

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from fseft.adaptation.request import AdaptRequest
    from fseft.experiment.callbacks import Callbacks
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.schemas import (
        Dataset,
        Fingerprint,
        Plan,
    )
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


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
    _check_request(request, request.folder(workspace))
    weights = request.model.weights if request.method.spec.needs_model else None
    for name in request.reporters:
        registry().resolve("reporter", name)
    fingerprint = _measure(request, workspace, callbacks)
    labels = select_labels(fingerprint, request.labels)
    rows = _head_rows(request, labels, fingerprint)
    _check_structures(request, list(labels), rows.of_model)
    support = _training_cases(request, fingerprint)
    plan = _plan(request, workspace, fingerprint, support, labels)
    _mention_cost_of_seeds(request, plan)
    cases = support.cases
    return AdaptConfig(
        request=_within_budget(request, plan),
        plan=plan,
        channels=fingerprint.channels,
        labels=labels,
        support=support,
        labelled_in=_count_labelled(request.dataset, labels, support, fingerprint),
        weights=weights,
        matched=rows.of_model,
        continued=rows.of_adapter,
        **_scans(request, fingerprint, cases),
        **_annotation(request.dataset, fingerprint, cases, labels),
    )


def _measure(
    request: AdaptRequest, workspace: Workspace, callbacks: Callbacks | None
) -> Fingerprint:
    """Measures the dataset, and refuses scans for which an adapter was not trained."""
    fingerprint = measure(
        request.dataset, request.model, workspace, workers=request.workers, callbacks=callbacks
    )
    check_origin(request, fingerprint)
    return fingerprint


def _scans(
    request: AdaptRequest, fingerprint: Fingerprint, cases: Collection[str]
) -> dict[str, Any]:
    """Returns the fields of the configuration on the scans of the training, with labels or not."""
    dataset, scans = request.dataset, request.unlabelled
    images = [case.images for case in dataset.cases if case.name in cases]
    return {
        "case_contents": tuple(case.content for case in fingerprint.cases if case.name in cases),
        "image_digests": tuple(map(content_digest, images)),
        "scans": scan_range(fingerprint.cases, cases),
        "unlabelled": scans and scans.without_training_cases(dataset, cases),
    }


def with_method(config: AdaptConfig, method: ConfiguredMethod) -> AdaptConfig:
    """Returns the configuration with another method, and the time budget of the plan for it.

    Args:
        config: The configuration.
        method: Another method for the same model, of the same access to pre-trained weights.
    """
    request = replace(config.request, method=method)
    plan = for_method(config.plan, request.model, method.spec, config.channels)
    return replace(config, request=_within_budget(request, plan), plan=plan)


def _annotation(
    dataset: Dataset, fingerprint: Fingerprint, cases: Collection[str], labels: Collection[str]
) -> dict[str, Any]:
    """Returns the fields of the configuration on what the training cases annotate."""
    regions = {name: part for name, part in dataset.regions.items() if name in labels}
    return {
        "partly_annotated": fingerprint.partly_annotated(cases),
        "annotated": incomplete_annotations(dataset, fingerprint, cases, labels),
        "regions": regions,
    }


def _plan(
    request: AdaptRequest,
    workspace: Workspace,
    fingerprint: Fingerprint,
    support: TrainingSet,
    labels: Mapping[str, int],
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
        _previous_plan(request, workspace, support, labels),
        continued=bool(checkpoints(request.folder(workspace))),
    )
    plan = for_method(plan, request.model, request.method.spec, fingerprint.channels)
    if request.origin is not None:
        plan = with_former_preprocessing(plan, request.origin)
    for warning in (*plan.warnings, *_few_steps(request, plan)):
        logger.warning("%s", warning)
    return plan


def _previous_plan(
    request: AdaptRequest,
    workspace: Workspace,
    support: TrainingSet,
    labels: Mapping[str, int],
) -> Path | None:
    """Returns the plan of the run in the folder, if it was made for the same training labels.

    A machine with another device or memory resumes a run as it was planned.
    """
    folder = request.folder(workspace)
    path = folder / "run.json"
    if request.overwrite or not path.is_file():
        return None
    run = read_document(path, Run)
    is_same = run.sources.get(SUPPORT) == ", ".join(support.cases) and run.labels == labels
    return folder / "plan.json" if is_same else None


def _few_steps(request: AdaptRequest, plan: Plan) -> list[str]:
    """Returns a warning if the time budget allows too few steps of the whole network."""
    training, spec = request.method.training, request.method.spec
    if not spec.trains or request.method.caches_features or "epochs" in training.model_fields_set:
        return []
    crops = training.crops_per_step or plan.crops_per_step
    minutes = request.minutes or plan.minutes
    return warn_of_few_steps(plan, minutes and minutes / request.seeds, crops)


def _mention_cost_of_seeds(request: AdaptRequest, plan: Plan) -> None:
    """Logs that several trainings take longer than one, where no time budget is divided."""
    if request.seeds > 1 and request.minutes is None and not _sets_epochs(request, plan):
        logger.info(
            "%d trainings, each as long as one; with minutes, they share the time", request.seeds
        )


def _sets_epochs(request: AdaptRequest, plan: Plan) -> bool:
    """Returns whether the number of epochs follows from the default time budget of the plan."""
    is_open = plan.minutes is not None and plan.options.minutes is None
    training = request.method.training
    return (
        is_open and "epochs" not in training.model_fields_set and not request.method.caches_features
    )


def _within_budget(request: AdaptRequest, plan: Plan) -> AdaptRequest:
    """Applies the time budget of the plan, where neither minutes nor epochs are set.

    A default budget becomes a number of epochs, with which a repeated run has the same result;
    several seeds share it. It does not limit steps on cached features, which cost little.
    """
    training = request.method.training
    if request.minutes or plan.minutes is None or "epochs" in training.model_fields_set:
        return request
    if plan.options.minutes is not None:
        return replace(request, minutes=plan.minutes)
    if not _sets_epochs(request, plan):
        return request
    steps = steps_in_time(plan, training.crops_per_step or plan.crops_per_step)
    epochs = min(training.epochs, max(1, ceil(steps / (request.k * request.seeds))))
    shorter = training.model_copy(update={"epochs": epochs})
    return replace(request, method=replace(request.method, training=shorter))


class _HeadRows(NamedTuple):
    """Structure -> whose row of the head it starts from: a class of the model, or of an adapter."""

    of_model: dict[str, str]
    of_adapter: dict[str, str]


def _head_rows(
    request: AdaptRequest, labels: Mapping[str, int], fingerprint: Fingerprint
) -> _HeadRows:
    """Matches structures with those of the adapter to start from, and others with the model's."""
    continued = match_rows(request, list(labels), fingerprint)
    spec, card = request.method.spec, request.model.card
    # Only a whole network has a head with rows to copy; a text-driven head is used unchanged.
    has_rows = spec.needs_model and (card.scope == "network" or not spec.trains)
    classes = card.classes if has_rows else ()
    structures = [name for name in labels if name not in continued]
    mapping = {name: row for name, row in request.mapping.items() if name not in continued}
    matched = match_classes(structures, classes, mapping, fingerprint.meanings)
    return _HeadRows(matched, continued)


def _training_cases(request: AdaptRequest, fingerprint: Fingerprint) -> TrainingSet:
    """Draws the training cases."""
    volumes = {case.name: case.volumes_mm3 for case in fingerprint.cases if case.volumes_mm3}
    cases = select_support(list(volumes), request.k, request.seed, request.cases)
    return TrainingSet(
        dataset=fingerprint.dataset,
        k=request.k,
        seed=request.seed,
        cases=cases,
        pool=tuple(sorted(request.cases or volumes)),
    )


def _count_labelled(
    dataset: Dataset, labels: Mapping[str, int], support: TrainingSet, fingerprint: Fingerprint
) -> dict[str, int]:
    """Counts the cases that have each structure.

    Warns of structures that no case has, and of those that are assumed to be absent from some.
    """
    labelled_in, k = count_cases(labels, support.cases, fingerprint), len(support.cases)
    absent = [name for name, count in labelled_in.items() if not count]
    if absent:
        logger.warning("no training case has %s: it cannot be learned", ", ".join(absent))
    assumed = assumed_absent(dataset, fingerprint, support.cases)
    partial = [
        f"{name} in {count} of {k}"
        for name, count in labelled_in.items()
        if count and assumed.get(name)
    ]
    if partial:
        logger.warning(
            "structures that only some training cases have a label of (%s) count as background in "
            "the others; where a scan has them, label them, choose other cases, or set "
            "`missing_label` to unannotated",
            ", ".join(partial),
        )
    return labelled_in


def _check_request(request: AdaptRequest, folder: Path) -> None:
    """Refuses unknown cases, overlap, and a model that the method or the dataset does not suit.

    Called before the weights are hashed and the dataset is measured, which may take long.
    """
    require_folder(folder)
    labelled = [case.name for case in request.dataset.labelled]
    if labelled:
        select_support(labelled, request.k, request.seed, request.cases)
    spec, card = request.method.spec, request.model.card
    if request.dataset.regions and not spec.supports_regions:
        raise IncompatibleError(
            f"the method {spec.name!r} needs one structure per voxel, and "
            f"{', '.join(request.dataset.regions)} overlap",
            hint="Use another method, such as lora, or give each structure one value.",
        )
    if card.contract.assumed_orientation and not spec.trains:
        raise IncompatibleError(
            f"the axes of the training scans of {card.name!r} are unknown, so that it could see "
            "scans turned or mirrored",
            hint="Import it again with `like`, one of its training scans, or `orientation`.",
        )
    _check_model(request)
    _check_unlabelled(request)


def _check_unlabelled(request: AdaptRequest) -> None:
    """Refuses scans without labels for a method that trains no network on crops."""
    method = request.method
    if request.unlabelled and (method.caches_features or not method.spec.trains):
        raise IncompatibleError(
            f"the method {method.name!r} does not train on crops, which scans without labels need",
            hint="Use a white-box method, such as lora, or leave out `unlabelled`.",
        )


def _check_model(request: AdaptRequest) -> None:
    """Refuses a model that lacks what the method starts from, or does not take the channels."""
    dataset, model, spec = request.dataset, request.model, request.method.spec
    check_channels(model, dataset, request.channels)
    choose_for_method(model, spec, dataset.channels, request.channels)
    if spec.needs_model and not model.pretrained:
        raise IncompatibleError(
            f"the method {spec.name!r} starts from a pre-trained model, and the model is none",
            hint="Use the method scratch, or a model that `fseft models` lists.",
        )
    if spec.access == "black-box" and spec.needs_model and model.card.scope == "encoder":
        raise IncompatibleError(
            f"the weights of {model.card.name!r} are an encoder only: its output features would be "
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
