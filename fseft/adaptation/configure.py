"""What `fseft adapt` decides before any training: method, settings, structures, support cases, decoder."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.anatomy.vocabulary import has_sides, match_classes
from fseft.errors import FseftError, IncompatibleError, did_you_mean, pluralise
from fseft.experiment.settings import split_settings
from fseft.learn.training.prefetch import derived_seed
from fseft.model_zoo.catalogue import SCRATCH, find_model_card, find_weights
from fseft.planning.dataset_reading import read_dataset
from fseft.planning.plan import make_plan, restrict_intensity
from fseft.registry import registry
from fseft.schemas import PartMode, SupportSet
from fseft.volume.image import content_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fseft.learn.training.progress import Epoch
    from fseft.model_zoo.catalogue import Weights
    from fseft.parallel import Workers
    from fseft.plugin import MethodSpec
    from fseft.schemas import Fingerprint, ModelCard, Plan
    from fseft.training_config import TrainingConfig
    from fseft.workspace import Workspace


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
    mapping: tuple[tuple[str, str], ...] = ()
    decoder: PartMode | None = None
    bottleneck: PartMode | None = None
    minutes: float | None = None
    half: bool = False
    output: Path | None = None
    memory_bytes: int | None = None
    device: str = "auto"
    workers: Workers = 1
    strict: bool = False
    overwrite: bool = False
    reporters: tuple[str, ...] = ()


def _silent(total: int, description: str) -> AbstractContextManager[Callable[[str], None]]:
    del total, description
    return nullcontext(lambda _: None)


@dataclass(frozen=True)
class Listener:
    """What the caller wants to hear while `adapt` works.

    Attributes:
        begin: Told, before any training, what was decided, and after which epoch the run goes on (0: it starts).
        step: Told after each step, with the epoch as far as it is.
        epoch: Told after each epoch.
        warn: Told what may disappoint: the plan's warnings, a training that was too short, errors of reporters.
        progress: Called as progress(total, what) where cases are measured or preprocessed; gives a context whose
            value is called with the name of each case that is done.
    """

    begin: Callable[[AdaptConfig, int], None] = lambda _job, _epoch: None
    step: Callable[[Epoch], None] = lambda _: None
    epoch: Callable[[Epoch], None] = lambda _: None
    warn: Callable[[str], None] = lambda _: None
    progress: Callable[[int, str], AbstractContextManager[Callable[[str], None]]] = _silent


@dataclass(frozen=True)
class AdaptConfig:
    """Everything decided, before any training."""

    request: AdaptRequest
    spec: MethodSpec
    config: dict[str, Any]
    recipe: TrainingConfig
    card: ModelCard
    plan: Plan
    channels: tuple[str, ...]
    labels: dict[str, int]
    support: SupportSet
    beside: dict[str, PartMode]
    """What becomes of decoder and bottleneck beside the method."""
    matched: dict[str, str] = field(default_factory=dict)
    weights: Weights | None = None
    contents: tuple[str, ...] = ()
    support_images: tuple[str, ...] = ()

    @property
    def crops(self) -> int:
        """Crops of one volume per step: the recipe's, or else the plan's."""
        return self.recipe.crops_per_step or self.plan.crops_per_step

    @property
    def backbone_sha256(self) -> str:
        """Of the weights that the adapter will need; empty where it starts from random ones."""
        return self.weights.sha256 if self.weights else ""


def select_support(
    labelled: Sequence[str], k: int, seed: int, pool: Sequence[str] = ()
) -> tuple[str, ...]:
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
            raise FseftError(
                "is no labelled case of the dataset",
                case=name,
                hint=did_you_mean(name, list(labelled)),
            )
    candidates = sorted(set(pool) or set(labelled))
    if not 1 <= k <= len(candidates):
        raise FseftError(
            f"k is {k}, but there {'is' if len(candidates) == 1 else 'are'} "
            f"{pluralise(len(candidates), 'labelled case')} to choose from",
            hint=f"Use --k between 1 and {len(candidates)}."
            if candidates
            else "Add labels to the dataset.",
        )
    order = np.random.default_rng(derived_seed(seed, "support")).permutation(len(candidates))
    return tuple(candidates[index] for index in order[:k])


def configure(request: AdaptRequest, store: Workspace, listener: Listener) -> AdaptConfig:
    """Everything that can be refused is refused here, before a network is built.

    Raises:
        FseftError: Unknown names, settings that do not fit, too few labelled cases, or a broken dataset.
    """
    spec = registry().method(request.method)
    default: PartMode = (
        "frozen" if spec.access == "black-box" or not spec.needs_model else "fine-tuned"
    )
    beside: dict[str, PartMode] = {
        "decoder": request.decoder or default,
        "bottleneck": request.bottleneck or "frozen",
    }
    config, recipe = split_settings(spec, request.settings, beside["decoder"])
    if config.closed_form and not uses_cached_features(spec, beside, recipe):
        raise FseftError(
            f"the solver of the method {spec.name!r} needs features that stay as they are",
            hint="Leave out features=recomputed, --decoder and --bottleneck, or the solver.",
        )
    card = find_model_card(request.model, store)
    _check_model(spec, card)
    weights = find_weights(request.model, store) if spec.needs_model else None
    for name in request.reporters:
        registry().resolve("reporter", name)
    dataset = read_dataset(request.folder, strict=request.strict)
    with listener.progress(len(dataset.cases), "measure") as done:
        fingerprint, plan = make_plan(
            request.folder,
            request.model,
            store,
            memory_bytes=request.memory_bytes,
            device=request.device,
            workers=request.workers,
            progress=done,
            reuse=True,
        )
    for warning in plan.warnings:
        listener.warn(warning)
    labels = select_labels(fingerprint, request.labels)
    # Rows can be copied from a head that the weights hold; one that texts drive serves only as it is.
    rows = card.classes if spec.needs_model and (card.scope == "network" or not spec.trains) else ()
    matched = match_classes(list(labels), rows, dict(request.mapping), fingerprint.meanings)
    _check_fit(request, spec, recipe, list(labels), matched)
    labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
    support = select_support(labelled, request.k, request.seed, request.cases)
    if absent := _absent(fingerprint, labels, support):
        listener.warn(f"no support case shows {', '.join(absent)}: it cannot be learned")
    plan = restrict_intensity(plan, card.contract, dataset, support)
    return AdaptConfig(
        request=request,
        spec=spec,
        config=config.model_dump(mode="json"),
        recipe=recipe,
        card=card,
        plan=plan,
        channels=fingerprint.channels,
        labels=labels,
        support=SupportSet(
            dataset=fingerprint.dataset, k=request.k, seed=request.seed, cases=support
        ),
        beside=beside,
        matched=matched,
        weights=weights,
        contents=tuple(case.content for case in fingerprint.cases if case.name in support),
        support_images=tuple(
            content_digest(case.images) for case in dataset.cases if case.name in support
        ),
    )


def uses_cached_features(
    spec: MethodSpec, beside: Mapping[str, PartMode], recipe: TrainingConfig
) -> bool:
    """Whether training is on features kept from one pass; where more than the head is trained, they change."""
    return (
        spec.access == "black-box"
        and set(beside.values()) == {"frozen"}
        and recipe.features == "cached"
    )


def _check_model(spec: MethodSpec, card: ModelCard) -> None:
    """Refuse a model that has not what the method starts from."""
    if spec.needs_model and card.name == SCRATCH:
        raise IncompatibleError(
            f"the method {spec.name!r} starts from a pre-trained model, and --model is none",
            hint="Use --method scratch, or a model that `fseft models` lists.",
        )
    if spec.access == "black-box" and spec.needs_model and card.scope == "encoder":
        raise IncompatibleError(
            f"the weights of {card.name!r} are an encoder only: its output features would be random, and the method "
            f"{spec.name!r} learns from nothing else",
            hint="Use a white-box method, such as --method lora, or another model.",
        )


def _check_fit(
    request: AdaptRequest,
    spec: MethodSpec,
    recipe: TrainingConfig,
    labels: list[str],
    matched: dict[str, str],
) -> None:
    """Refuse what method, model and structures do not allow together."""
    if not spec.trains and not matched:
        raise IncompatibleError(
            f"the model {request.model!r} knows none of the structures {', '.join(labels)}",
            hint="Use a method that trains, such as --method lora.",
        )
    for part, asked in {"decoder": request.decoder, "bottleneck": request.bottleneck}.items():
        if not spec.trains and asked not in (None, "frozen"):
            raise FseftError(
                f"the method {spec.name!r} trains nothing, also no {part}",
                hint=f"Leave out --{part}.",
            )
        if part in spec.tunes and asked in ("frozen", "low-rank"):
            raise FseftError(
                f"the method {spec.name!r} trains the whole {part}: --{part} {asked} would change nothing",
                hint=f"Leave out --{part}, or use another method.",
            )
    if recipe.mirror and has_sides(labels):
        raise FseftError(
            "mirror=true would swap left and right structures", hint="Leave mirroring off."
        )


def _absent(fingerprint: Fingerprint, labels: Iterable[str], support: Sequence[str]) -> list[str]:
    shown = {
        name for case in fingerprint.cases if case.name in support for name in case.volumes_mm3
    }
    return [name for name in labels if name not in shown]


def select_labels(fingerprint: Fingerprint, wanted: Sequence[str]) -> dict[str, int]:
    """Structure -> label value, by value."""
    for name in wanted:
        if name not in fingerprint.labels:
            raise FseftError(
                f"the dataset has no structure {name!r}",
                hint=did_you_mean(name, list(fingerprint.labels)),
            )
    chosen = {n: v for n, v in fingerprint.labels.items() if not wanted or n in wanted}
    present = {n: v for n, v in chosen.items() if fingerprint.classes[n].cases}
    absent = sorted(chosen.keys() - present.keys())
    if wanted and absent:
        raise FseftError(
            f"the structure {absent[0]!r} is in no case", hint="Leave it out of --labels."
        )
    if not present:
        raise FseftError(
            "no case has a label with a structure in it", hint="Add labels to the dataset."
        )
    return dict(sorted(present.items(), key=lambda item: item[1]))
