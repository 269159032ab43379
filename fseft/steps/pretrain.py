"""`fseft pretrain`: a supervised foundation model from datasets that are labelled only in part."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fseft.documents import Contract, Intensity, ModelCard, Recipe
from fseft.errors import FseftError
from fseft.learn import backbone
from fseft.learn.augment import augment, margin
from fseft.learn.batches import Ahead, derived_seed
from fseft.learn.loop import autocast, fit, start
from fseft.learn.loss import masked_loss, structure_masks
from fseft.learn.method import Adapted
from fseft.learn.patches import Crops, CropSource
from fseft.steps.adapters import versions
from fseft.steps.checkpoints import load_checkpoint, save_checkpoint
from fseft.steps.devices import choose_device
from fseft.steps.models import find_card, valid_name
from fseft.steps.plan import make_plan
from fseft.steps.preprocess import preprocess
from fseft.steps.structures import agree_on_structures
from fseft.store import digest, file_digest, replacing, write_document
from fseft.volume.cache import CachedCase, open_case
from fseft.volume.intensity import choose_intensity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from fseft.documents import Fingerprint, Millimetres, Modality, Plan, Preprocessing, Triple
    from fseft.learn.loop import Epoch, Training
    from fseft.learn.roles import Architecture
    from fseft.parallel import Workers
    from fseft.steps.structures import Annotation
    from fseft.store import Store

STEPS_PER_EPOCH = 50
RECIPE = Recipe(learning_rate=1e-3, weight_decay=1e-5, plateau=False, foreground=0.8, crops=2)
"""Two crops per step, each of another case; four in five around a structure."""


@dataclass(frozen=True)
class PretrainRequest:
    """What `fseft pretrain` was asked for."""

    folders: tuple[Path, ...]
    name: str
    architecture: str = "resunet"
    labels: tuple[str, ...] = ()
    spacing_mm: Millimetres | None = None
    window: tuple[float, float] | None = None
    patch_size: Triple = (64, 64, 64)
    recipe: Recipe = RECIPE
    minutes: float | None = None
    seed: int = 0
    licence: str = ""
    device: str = "cpu"
    workers: Workers = 1
    half: bool = False


@dataclass(frozen=True)
class Source:
    """One dataset, ready: its cached cases, its crops, and which of all classes it annotates."""

    name: str
    cases: tuple[CachedCase, ...]
    crops: CropSource
    annotated: tuple[int, ...]


def pretrain(
    request: PretrainRequest,
    store: Store,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> ModelCard:
    """Train one network on all datasets, a class counting only where its dataset annotates it.

    The loss is the masked mean of FSEFT (Silva-Rodríguez et al. 2025, section 3); datasets are drawn uniformly.

    Returns:
        The card of the new model, which lies in the workspace under `models/<name>/`.
    """
    request = replace(request, device=choose_device(request.device))
    architecture = backbone.architecture(request.architecture)
    _check(request, architecture)
    planned = [make_plan(folder, "none", store, workers=request.workers) for folder in request.folders]
    annotations = agree_on_structures([fingerprint for fingerprint, _ in planned], request.labels)
    for (fingerprint, _), annotation in zip(planned, annotations, strict=True):
        tell(f"{fingerprint.dataset}: {annotation}")
    prepared = [_prepare(request, store, *one) for one in zip(request.folders, planned, annotations, strict=True)]
    classes = sorted({name for one in prepared for name in one.labels})
    sources = [_source(request, one, classes) for one in prepared]
    key = _key(request, sources)
    if (known := _finished(request, store, key)) is not None:
        return known
    network = backbone.build(
        architecture,
        in_channels=1,
        out_channels=len(classes),
        hparams={},
        seed=derived_seed(request.seed, "init"),
    ).to(request.device)
    network.train()
    training = start(Adapted(network, learning_rate=1e-3, train_mode=True), request.recipe)
    checkpoint = store.model(request.name) / "checkpoint.pt"
    if checkpoint.exists() and (state := load_checkpoint(checkpoint)).pop("request", "") == key:
        training.restore(state)
    with Ahead(lambda step: _draw(sources, request, step)) as ahead:

        def loss_of(step: int) -> torch.Tensor:
            crops, annotated = ahead.batch(step)
            images = torch.from_numpy(crops.images).to(request.device)
            labels = torch.from_numpy(crops.labels[:, 0]).to(request.device)
            reference = structure_masks(labels, len(classes))
            torch.manual_seed(derived_seed(request.seed, "dropout", step))
            with autocast(request.device, request.recipe.precision):
                logits = network(images)
            return masked_loss(logits, reference, torch.from_numpy(annotated).to(request.device))

        fit(
            training,
            loss_of,
            request.recipe,
            steps_per_epoch=STEPS_PER_EPOCH,
            minutes=request.minutes,
            on_epoch=on_epoch,
            save=lambda state: save_checkpoint(checkpoint, {**state, "request": key}),
        )
    modalities = {one.preprocessing.modality for one in prepared}
    card = _card(request, _contract(request, modalities), classes, sources, training)
    _register(card, key, training.adapted, request, store)
    checkpoint.unlink(missing_ok=True)
    return find_card(request.name, store)


def _check(request: PretrainRequest, architecture: Architecture) -> None:
    divisor, least = architecture.divisor, architecture.minimum_patch
    cause = ""
    valid_name(request.name, "--out")
    if any(side % d or side < m for side, d, m in zip(request.patch_size, divisor, least, strict=True)):
        cause = f"--patch {request.patch_size}: sides must be divisible by {divisor} and at least {least}"
    elif request.window is not None and request.window[0] >= request.window[1]:
        cause = f"--window {request.window}: the first value must be the lower one"
    elif request.spacing_mm is not None and min(request.spacing_mm) <= 0:
        cause = f"--spacing {request.spacing_mm}: must be more than 0"
    if cause:
        raise FseftError(cause, hint="Choose another.")


def _finished(request: PretrainRequest, store: Store, key: str) -> ModelCard | None:
    """The model, if this very request was answered before."""
    if request.name not in store.models():
        return None
    card = find_card(request.name, store)
    return card if card.provenance.get("request") == key else None


def _key(request: PretrainRequest, sources: Sequence[Source]) -> str:
    """What a checkpoint must have been made for to be gone on with."""
    content = [case.meta["content"] for source in sources for case in source.cases]
    return digest({**asdict(request), "workers": 0}, [source.annotated for source in sources], content)


def _contract(request: PretrainRequest, modalities: Collection[Modality]) -> Contract:
    """What the new model expects; for CT without a window each dataset's own clipping goes on to decide."""
    intensity: dict[Modality, Intensity] = {one: Intensity(scheme="zscore") for one in modalities if one != "ct"}
    if request.window is not None and "ct" in modalities:
        intensity["ct"] = Intensity(scheme="window", low=request.window[0], high=request.window[1])
    return Contract(spacing_mm=request.spacing_mm, intensity=intensity, patch_size=request.patch_size)


@dataclass(frozen=True)
class Prepared:
    """A dataset on the new model's grid. `labels` has the structures that are drawn in some case, by their values."""

    name: str
    labels: Mapping[str, int]
    preprocessing: Preprocessing
    cases: tuple[CachedCase, ...]


def _prepare(
    request: PretrainRequest, store: Store, folder: Path, planned: tuple[Fingerprint, Plan], annotation: Annotation
) -> Prepared:
    """Preprocess a dataset under the new model's contract."""
    fingerprint, plan = planned
    labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
    if len(fingerprint.channels) != 1 or not labelled:
        raise FseftError(
            f"has {len(fingerprint.channels)} channel(s) and {len(labelled)} labelled cases",
            file=folder,
            hint="Pre-training takes labelled datasets of one channel.",
        )
    contract = _contract(request, [fingerprint.modality])
    intensity, _ = choose_intensity(contract, fingerprint.modality, list(fingerprint.intensities))
    preprocessing = plan.preprocessing.model_copy(
        update={
            "spacing_mm": contract.spacing_mm or plan.preprocessing.spacing_mm,
            "intensity": intensity,
            "patch_size": request.patch_size,
        }
    )
    plan = plan.model_copy(update={"preprocessing": preprocessing})
    cache = preprocess(folder, plan, store, workers=request.workers, pairs=annotation.pairs)
    cases = tuple(open_case(cache.folder, name) for name in labelled)
    return Prepared(fingerprint.dataset, annotation.labels, preprocessing, cases)


def _source(request: PretrainRequest, prepared: Prepared, classes: Sequence[str]) -> Source:
    preprocessing = prepared.preprocessing
    indices = {value: 1 + classes.index(structure) for structure, value in prepared.labels.items()}
    size = margin(request.patch_size) if request.recipe.augment else request.patch_size
    crops = CropSource(
        size, preprocessing.intensity, preprocessing.modality, indices, foreground=request.recipe.foreground
    )
    return Source(prepared.name, prepared.cases, crops, tuple(sorted(set(indices.values()))))


def _draw(sources: Sequence[Source], request: PretrainRequest, step: int) -> tuple[Crops, np.ndarray[Any, Any]]:
    """One crop from each of several cases; datasets first, then a case of it, each uniformly."""
    rng = np.random.default_rng(derived_seed(request.seed, "crops", step))
    count = request.recipe.crops or 2
    picked = [sources[int(rng.integers(len(sources)))] for _ in range(count)]
    drawn = [s.crops.draw(s.cases[rng.integers(len(s.cases))], 1, rng) for s in picked]
    crops = Crops(np.concatenate([d.images for d in drawn]), np.concatenate([d.labels for d in drawn]))
    total = max(max(source.annotated) for source in sources)
    annotated = np.zeros((count, total), np.float32)
    for row, source in zip(annotated, picked, strict=True):
        row[[index - 1 for index in source.annotated]] = 1
    if request.recipe.augment:
        seed = derived_seed(request.seed, "augmentation", step)
        crops = augment(crops, request.patch_size, mirror_axes=(), seed=seed)
    return crops, annotated


def _card(
    request: PretrainRequest, contract: Contract, classes: Sequence[str], sources: Sequence[Source], training: Training
) -> ModelCard:
    provenance = {
        "datasets": {
            s.name: {"cases": len(s.cases), "annotated": [classes[i - 1] for i in s.annotated]} for s in sources
        },
        "recipe": request.recipe.model_dump(mode="json"),
        "seed": request.seed,
        "steps": training.step,
        "minutes": round(training.seconds / 60, 1),
        "versions": versions(),
    }
    return ModelCard(
        name=request.name,
        summary=f"pre-trained on {len(sources)} partially labelled datasets",
        architecture=request.architecture,
        parameters=backbone.count_parameters(training.adapted.network),
        classes=tuple(classes),
        activation="sigmoid",
        contract=contract,
        licence=request.licence,
        datasets=tuple(source.name for source in sources),
        provenance=provenance,
    )


def _register(card: ModelCard, key: str, adapted: Adapted, request: PretrainRequest, store: Store) -> None:
    """Write weights and card. The card goes first and comes last, so that a model is there whole or not at all."""
    from safetensors.torch import save

    folder = store.model(request.name)
    path, state = folder / "weights.safetensors", adapted.network.cpu().state_dict()
    if request.half:  # but not indices and counts, which half precision does not hold beyond 2048
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    (folder / "model.json").unlink(missing_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in state.items()}))
    done = {"sha256": file_digest(path), "provenance": {**card.provenance, "request": key}}
    write_document(folder / "model.json", card.model_copy(update=done))
