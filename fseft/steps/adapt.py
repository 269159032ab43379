"""`fseft adapt`: k labelled volumes, one method, one small file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange

from fseft.documents import Manifest, Provenance, Recipe, Run, SupportSet
from fseft.errors import FseftError, did_you_mean
from fseft.learn.augment import augment, margin
from fseft.learn.backbone import count_parameters
from fseft.learn.batches import Ahead, derived_seed
from fseft.learn.heads import has_sides, match_classes
from fseft.learn.loop import Epoch, autocast, fit, start
from fseft.learn.loss import segmentation_loss
from fseft.learn.patches import Crops, CropSource
from fseft.registry import notify, observers, registry
from fseft.steps.adapters import NAME, apply_method, make_network, versions, write_adapter
from fseft.steps.checkpoints import load_checkpoint, save_checkpoint
from fseft.steps.datasets import read_dataset
from fseft.steps.models import SCRATCH, find_card, weights_path
from fseft.steps.plan import make_plan, restrict_intensity
from fseft.steps.preprocess import preprocess
from fseft.steps.settings import split_settings
from fseft.store import digest, file_digest, read_document, write_document
from fseft.volume.cache import CachedCase, open_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from fseft.documents import Decoder, Fingerprint, ModelCard, Plan
    from fseft.learn.method import Adapted
    from fseft.plugin import MethodSpec
    from fseft.store import Store


@dataclass(frozen=True)
class AdaptRequest:
    """What `fseft adapt` was asked for."""

    folder: Path
    model: str
    method: str
    k: int
    seed: int = 0
    settings: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    decoder: Decoder | None = None
    minutes: float | None = None
    output: Path | None = None
    memory_bytes: int | None = None
    device: str = "auto"
    workers: int = 1
    strict: bool = False
    reporters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listener:
    """What the caller wants to hear while `adapt` works."""

    epoch: Callable[[Epoch], None] = lambda _: None
    start: Callable[[Run], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Adaptation:
    """The result: the run, and the folder with its files."""

    run: Run
    folder: Path
    adapter: Path
    resumed_from: int = 0
    already_done: bool = False


@dataclass(frozen=True)
class _Job:
    """Everything decided, before any training."""

    request: AdaptRequest
    spec: MethodSpec
    config: dict[str, Any]
    recipe: Recipe
    card: ModelCard
    plan: Plan
    channels: tuple[str, ...]
    labels: dict[str, int]
    support: SupportSet
    decoder: Decoder
    matched: dict[str, str] = field(default_factory=dict)
    backbone_sha256: str = ""


def choose_support(labelled: Sequence[str], k: int, seed: int, pool: Sequence[str] = ()) -> tuple[str, ...]:
    """Draw k of the labelled cases: the first k of one random order, so that a smaller k is part of a larger one.

    Args:
        labelled: Names of all labelled cases.
        k: How many.
        seed: Of the order.
        pool: Only these, if given.

    Raises:
        FseftError: k is larger than the number of cases, or the pool names a case that is not labelled.
    """
    for name in pool:
        if name not in labelled:
            raise FseftError("is no labelled case of the dataset", case=name, hint=did_you_mean(name, list(labelled)))
    candidates = sorted(set(pool) or set(labelled))
    if not 1 <= k <= len(candidates):
        raise FseftError(
            f"k is {k}, but there are {len(candidates)} labelled cases to choose from",
            hint=f"Use --k between 1 and {len(candidates)}." if candidates else "Add labels to the dataset.",
        )
    order = np.random.default_rng(derived_seed(seed, "support")).permutation(len(candidates))
    return tuple(candidates[index] for index in order[:k])


def adapt(request: AdaptRequest, store: Store, listener: Listener | None = None) -> Adaptation:
    """Adapt a model to a dataset's structures with k of its labelled cases.

    Plans and preprocesses what is missing, trains, and leaves `adapter.safetensors`, `run.json`, `support.json` and
    `log.jsonl` in the run's folder. A run that was killed goes on from its checkpoint; a finished one is not repeated.

    Raises:
        FseftError: Bad input; see the message.
    """
    listener = listener or Listener()
    job = _decide(request, store)
    folder = request.output or store.run(job.plan.dataset, request.model, request.method, request.k, request.seed)
    adapter = folder / NAME
    fresh = _run_document(job)
    earlier = _earlier_run(folder, fresh)
    if earlier is not None and earlier.outcome == "finished" and adapter.is_file():
        return Adaptation(earlier, folder, adapter, already_done=True)
    checkpoint = folder / "checkpoint.pt"
    if earlier is None:
        checkpoint.unlink(missing_ok=True)
    cached = _cached_support(job, store)
    seed = derived_seed(request.seed, "init")
    architecture, network = make_network(
        job.card,
        store,
        job.labels,
        len(job.channels),
        seed=seed,
        expect=job.backbone_sha256,
        matched=job.matched,
        unmatched_never=not job.spec.trains,
    )
    adapted = apply_method(architecture, network, request.method, job.config, job.decoder, seed)
    run = fresh.model_copy(update={"trained_parameters": count_parameters(network, trainable=True)})
    write_document(folder / "support.json", job.support)
    write_document(folder / "run.json", run)
    state = load_checkpoint(checkpoint) if checkpoint.is_file() else None
    resumed = len(state["losses"]) if state else 0
    listener.start(run)
    run = _train(job, run, adapted, cached, folder, listener, state)
    write_adapter(adapter, adapted.state_dict(), _manifest(job, run))
    write_document(folder / "run.json", run)
    checkpoint.unlink(missing_ok=True)
    return Adaptation(run, folder, adapter, resumed_from=resumed)


def _decide(request: AdaptRequest, store: Store) -> _Job:
    spec = registry().method(request.method)
    config, recipe = split_settings(spec, request.settings)
    card = find_card(request.model, store)
    if spec.needs_model and card.name == SCRATCH:
        raise FseftError(
            f"the method {spec.name!r} starts from a pre-trained model, and --model is none",
            hint="Use --method scratch, or a model that `fseft models` lists.",
        )
    fingerprint, plan = make_plan(
        request.folder,
        request.model,
        store,
        memory_bytes=request.memory_bytes,
        device=request.device,
        workers=request.workers,
        strict=request.strict,
    )
    labels = _choose_labels(fingerprint, request.labels)
    matched = match_classes(list(labels), card.classes) if spec.needs_model else {}
    if not spec.trains and not matched:
        raise FseftError(
            f"the model {card.name!r} knows none of the structures {', '.join(labels)}",
            hint="Use a method that trains, such as --method lora.",
        )
    if not spec.trains and request.decoder not in (None, "frozen"):
        raise FseftError(f"the method {spec.name!r} trains nothing, also no decoder", hint="Leave out --decoder.")
    if recipe.mirror and has_sides(list(labels)):
        raise FseftError("mirror=true would swap left and right structures", hint="Leave mirroring off.")
    labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
    support = choose_support(labelled, request.k, request.seed, request.cases)
    _warn_of_absent(fingerprint, labels, support)
    plan = restrict_intensity(plan, read_dataset(request.folder), support)
    default: Decoder = "frozen" if spec.access == "black-box" or not spec.needs_model else "fine-tuned"
    return _Job(
        request=request,
        spec=spec,
        config=config.model_dump(mode="json"),
        recipe=recipe,
        card=card,
        plan=plan,
        channels=fingerprint.channels,
        labels=labels,
        support=SupportSet(dataset=fingerprint.dataset, k=request.k, seed=request.seed, cases=support),
        decoder=request.decoder or default,
        matched=matched,
        backbone_sha256=file_digest(weights_path(card.name, store)) if spec.needs_model else "",
    )


def _warn_of_absent(fingerprint: Fingerprint, labels: Iterable[str], support: Sequence[str]) -> None:
    shown = {name for case in fingerprint.cases if case.name in support for name in case.volumes_mm3}
    if absent := [name for name in labels if name not in shown]:
        warnings.warn(f"no support case shows {', '.join(absent)}: it cannot be learned", stacklevel=2)


def _choose_labels(fingerprint: Fingerprint, wanted: Sequence[str]) -> dict[str, int]:
    """Structure -> label value, by value."""
    for name in wanted:
        if name not in fingerprint.labels:
            raise FseftError(
                f"the dataset has no structure {name!r}", hint=did_you_mean(name, list(fingerprint.labels))
            )
    chosen = {n: v for n, v in fingerprint.labels.items() if not wanted or n in wanted}
    present = {n: v for n, v in chosen.items() if fingerprint.classes[n].cases}
    absent = sorted(chosen.keys() - present.keys())
    if wanted and absent:
        raise FseftError(f"the structure {absent[0]!r} is in no case", hint="Leave it out of --labels.")
    if not present:
        raise FseftError("no case has a label with a structure in it", hint="Add labels to the dataset.")
    return dict(sorted(present.items(), key=lambda item: item[1]))


def _run_document(job: _Job) -> Run:
    request = job.request
    return Run(
        dataset=job.plan.dataset,
        model=request.model,
        method=request.method,
        config=job.config,
        recipe={**job.recipe.model_dump(mode="json"), "minutes": request.minutes},
        labels=job.labels,
        decoder=job.decoder,
        k=request.k,
        seed=request.seed,
        plan=digest(job.plan.model_dump(mode="json"), job.support.cases, job.backbone_sha256),
        trained_parameters=0,
        head_rows=job.matched,
        plugins=_provenance(request),
    )


def _provenance(request: AdaptRequest) -> tuple[Provenance, ...]:
    known = registry()
    found = [known.provenance("method", request.method)]
    if request.model in known.names("model"):
        found.append(known.provenance("model", request.model))
    return tuple(found)


def _earlier_run(folder: Path, fresh: Run) -> Run | None:
    """The run that was here before, if it was asked for the same thing; else its leftovers do not count."""
    path = folder / "run.json"
    if not path.is_file():
        return None
    earlier = read_document(path, Run)
    asked = ("dataset", "model", "method", "config", "recipe", "labels", "decoder", "k", "seed", "plan")
    return earlier if all(getattr(earlier, name) == getattr(fresh, name) for name in asked) else None


def _cached_support(job: _Job, store: Store) -> list[CachedCase]:
    workers = job.request.workers
    cache = preprocess(job.request.folder, job.plan, store, workers=workers, cases=job.support.cases)
    return [open_case(cache.folder, name) for name in job.support.cases]


def _train(
    job: _Job,
    run: Run,
    adapted: Adapted,
    cached: list[CachedCase],
    folder: Path,
    listener: Listener,
    state: dict[str, Any] | None,
) -> Run:
    """Fit with the chosen reporters watching; a run without training is over at once."""
    names = job.request.reporters or ("jsonl",)
    manager = observers([registry().create("reporter", name, folder) for name in names])

    def tell(hook: str, **arguments: Any) -> None:
        for problem in notify(manager, hook, run=run, **arguments):
            listener.warn(problem)

    def on_epoch(epoch: Epoch) -> None:
        metrics = {"loss": epoch.loss, "learning_rate": epoch.learning_rate, "seconds": epoch.seconds}
        tell("fseft_epoch_end", epoch=epoch.number, metrics=metrics)
        listener.epoch(epoch)

    def save(content: dict[str, Any]) -> None:
        save_checkpoint(folder / "checkpoint.pt", content)
        tell("fseft_checkpoint_saved", path=folder / "checkpoint.pt")

    tell("fseft_run_start", epoch=1 + (len(state["losses"]) if state else 0))
    if not job.spec.trains:
        run = run.model_copy(update={"outcome": "finished", "stopped_by": "nothing to train"})
        tell("fseft_run_end", outcome="finished")
        return run
    adapted.network.to(job.plan.device).train(adapted.train_mode)
    training = start(adapted, job.recipe)
    if state:
        training.restore(state)
    try:
        with Ahead(lambda step: _draw(job, cached, step)) as ahead:
            fit(
                training,
                lambda step: _loss(job, adapted, ahead.batch(step)),
                job.recipe,
                steps_per_epoch=len(cached),
                minutes=job.request.minutes,
                on_epoch=on_epoch,
                save=save,
            )
    except FseftError as error:
        tell("fseft_run_end", outcome=str(error))
        raise
    run = run.model_copy(
        update={
            "outcome": "finished",
            "epochs": len(training.losses),
            "stopped_by": training.stopped_by,
            "final_loss": training.losses[-1] if training.losses else None,
            "seconds": round(training.seconds, 1),
        }
    )
    tell("fseft_run_end", outcome="finished")
    return run


def _draw(job: _Job, cached: list[CachedCase], step: int) -> Crops:
    """Crops of one support case, each case once per epoch in an order of its own."""
    epoch, position = divmod(step, len(cached))
    seed = job.request.seed
    order = np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(len(cached))
    how = job.plan.preprocessing
    source = CropSource(
        margin(how.patch_size) if job.recipe.augment else how.patch_size,
        how.intensity,
        how.modality,
        {value: index for index, value in enumerate(job.labels.values(), start=1)},
        foreground=job.recipe.foreground,
    )
    rng = np.random.default_rng(derived_seed(seed, "crops", step))
    crops = source.draw(cached[order[position]], job.recipe.crops or job.plan.crops_per_step, rng)
    if not job.recipe.augment:
        return crops
    axes = (0, 1, 2) if job.recipe.mirror else ()
    return augment(crops, how.patch_size, mirror_axes=axes, seed=derived_seed(seed, "augmentation", step))


def _loss(job: _Job, adapted: Adapted, crops: Crops) -> torch.Tensor:
    device = job.plan.device
    images = torch.from_numpy(crops.images).to(device)
    labels = torch.from_numpy(rearrange(crops.labels, "b 1 i j k -> b i j k").astype(np.int64)).to(device)
    with autocast(device, job.recipe.precision):
        logits = adapted.network(images)
    return segmentation_loss(logits, labels, job.recipe.loss)


def _manifest(job: _Job, run: Run) -> Manifest:
    return Manifest(
        method=registry().provenance("method", job.request.method),
        config=job.config,
        model=job.card.name,
        backbone_sha256=job.backbone_sha256,
        architecture=job.plan.architecture,
        hparams=job.plan.hparams,
        decoder=job.decoder,
        preprocessing=job.plan.preprocessing,
        channels=job.channels,
        labels=job.labels,
        support=job.support.cases,
        dataset=job.plan.dataset,
        seed=derived_seed(job.request.seed, "init"),
        trained_parameters=run.trained_parameters,
        licence=job.card.licence,
        versions=versions(),
    )
