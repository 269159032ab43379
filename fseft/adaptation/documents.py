"""The documents of an adaptation: the run, and the manifest of its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.adaptation.continuation import describe_origin
from fseft.adaptation.differences import SUPPORT
from fseft.experiment.settings import component_provenance
from fseft.model_zoo.adapter_file import versions
from fseft.model_zoo.combination import joined_training_data
from fseft.model_zoo.loading import writing_order
from fseft.registry import registry
from fseft.schemas import Manifest, Preprocessing, Provenance, Run
from fseft.workspace import digest

if TYPE_CHECKING:
    from fseft.adaptation.request import AdaptConfig


def run_document(config: AdaptConfig) -> Run:
    """Describes the run, as if it had just begun."""
    request = config.request
    training = config.training.model_dump(mode="json")
    recipe = {**training, "minutes": request.minutes, "half": request.half}
    if request.seeds > 1:
        recipe["seeds"] = request.seeds
    return Run(
        dataset=config.plan.dataset,
        model=request.model.name,
        method=request.method.name,
        config=request.method.config.model_dump(mode="json"),
        recipe={key: value for key, value in recipe.items() if value is not None},
        labels=config.labels,
        **config.part_modes,
        k=request.k,
        seed=request.seed,
        sources=_sources(config),
        trained_parameters=0,
        backbone={"sha256": config.backbone_sha256, **request.model.card.provenance}
        if config.weights
        else {},
        head_rows=config.matched,
        plugins=_provenance(config),
        decisions=request.decisions,
        selection=request.selection,
        origin=describe_origin(config),
        unlabelled=config.unlabelled.describe() if config.unlabelled else None,
    )


def _sources(config: AdaptConfig) -> dict[str, str]:
    """Digests what the trained tensors depend on: data, decisions of the plan, weights."""
    plan = config.plan
    preprocessing = plan.preprocessing.model_dump(mode="json")
    decisions = (preprocessing, plan.crops_per_step, plan.architecture, plan.hparams)
    return {
        SUPPORT: ", ".join(config.support.cases),
        "data": digest(config.case_contents, *annotation_key(config)),
        "plan": digest(decisions, plan.device),
        "weights": config.backbone_sha256,
    }


def annotation_key(config: AdaptConfig) -> list[object]:
    """Returns the annotated structures of each training case, and the values of regions, if any."""
    annotated = {}
    for case, names in config.annotated.items():
        annotated[case] = sorted(names)
    parts = (annotated, config.regions)
    return [part for part in parts if part]


def _provenance(config: AdaptConfig) -> tuple[Provenance, ...]:
    """Lists the packages of method, architecture, model, and components of the training."""
    method = registry().provenance("method", config.request.method.name)
    architecture = registry().provenance("architecture", config.plan.architecture)
    model = config.request.model.source
    return (
        method,
        architecture,
        *([model] if model else []),
        *component_provenance(config.training),
    )


def adapter_manifest(config: AdaptConfig, run: Run) -> Manifest:
    """Describes the adapter, with everything that prediction needs.

    The cases of the adapter that it started from count as training cases.
    """
    request, plan = config.request, config.plan
    manifest = Manifest(
        method=registry().provenance("method", request.method.name),
        config=run.config,
        model=request.model.name,
        backbone_sha256=config.backbone_sha256,
        architecture=plan.architecture,
        hparams=plan.hparams,
        **config.part_modes,
        preprocessing=_inference_preprocessing(config),
        channels=config.channels,
        labels=config.labels,
        writing_order=_writing_order(config),
        **_training_data(config),
        seed=request.seed,
        init_seed=request.weights_seed,
        mirror=config.training.mirror,
        trained_parameters=run.trained_parameters,
        licence=request.model.card.licence,
        versions=versions(),
        plugins=run.plugins,
        selection=run.selection,
        strength=run.strength,
        soup=run.soup,
        origin=run.origin and run.origin.model_copy(update={"path": ""}),
        unlabelled=run.unlabelled and run.unlabelled.model_copy(update={"path": ""}),
    )
    if request.origin is None:
        return manifest
    cases = joined_training_data([request.origin.manifest, manifest])
    return manifest.model_copy(update=cases)


def _training_data(config: AdaptConfig) -> dict[str, Any]:
    """Returns the fields of a manifest on the training cases."""
    return {
        "support": config.support.cases,
        "support_images": config.image_digests,
        "scans": config.scans,
        "missing_label": config.request.dataset.missing_label,
        "dataset": config.plan.dataset,
        "k": config.request.k,
    }


def _writing_order(config: AdaptConfig) -> tuple[str, ...]:
    """Returns the order of overlapping structures; a training teaches that others exclude."""
    request = config.request
    if config.regions:
        return tuple(config.regions)
    is_model = request.method.spec.needs_model and not request.method.spec.trains
    return writing_order(request.model.card, config.labels, config.matched) if is_model else ()


def _inference_preprocessing(config: AdaptConfig) -> Preprocessing:
    """Returns the preprocessing of the plan; without training, with the patch of the model.

    The plan may have a smaller patch, for the memory of a training step that is never taken.
    """
    plan, request = config.plan, config.request
    patch_size = request.model.card.contract.patch_size
    if request.method.spec.trains or plan.options.patch_size or patch_size is None:
        return plan.preprocessing
    return plan.preprocessing.model_copy(update={"patch_size": patch_size})
