"""`fseft adapt`: k labelled volumes, one method, one small file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fseft.adaptation.configure import AdaptConfig, AdaptRequest, Listener, configure
from fseft.adaptation.training import SOLVED, train_adapter
from fseft.errors import FseftError, pluralise, summarise_exception
from fseft.experiment.checkpoints import load_checkpoint, save_checkpoint
from fseft.experiment.reporters import notify, observers_of
from fseft.learn.networks.backbone import count_parameters
from fseft.learn.training.early_stopping import is_undertrained
from fseft.learn.training.prefetch import derived_seed
from fseft.model_zoo.adapter_file import NAME, apply_method, versions, write_adapter
from fseft.model_zoo.loading import build_adaptable_network
from fseft.planning.preprocessing import preprocess
from fseft.registry import registry
from fseft.schemas import Manifest, Provenance, Run
from fseft.training_config import TrainingConfig
from fseft.volume.cache import CachedCase, open_case
from fseft.workspace import digest, exclusive_lock, read_document, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.training.progress import Epoch
    from fseft.plugin import Config
    from fseft.workspace import Workspace


SUPPORT = "support cases"
"""What an adapter was made of: the first of its sources."""


@dataclass(frozen=True)
class Adaptation:
    """The result: the run, and the folder with its files."""

    run: Run
    folder: Path
    adapter: Path
    resumed_from: int = 0
    already_done: bool = False


def adapt(request: AdaptRequest, store: Workspace, listener: Listener | None = None) -> Adaptation:
    """Adapt a model to a dataset's structures with k of its labelled cases.

    Plans and preprocesses what is missing, trains, and leaves `adapter.safetensors`, `run.json`, `support.json` and
    `log.jsonl` in the run's folder. A run that was killed goes on from its checkpoint, and a finished one is not
    repeated, but with `overwrite`.

    Raises:
        FseftError: Bad input, another run in the folder, or another process at work in it; see the message.
    """
    listener = listener or Listener()
    job = configure(request, store, listener)
    folder = request.output or store.run(
        job.plan.dataset, request.model, request.method, request.k, request.seed
    )
    with exclusive_lock(folder):
        return _adapt(job, folder, store, listener)


def _adapt(job: AdaptConfig, folder: Path, store: Workspace, listener: Listener) -> Adaptation:
    """Train in a folder where nobody else does."""
    request = job.request
    adapter = folder / NAME
    fresh = _run_document(job)
    checkpoint = folder / "checkpoint.pt"
    earlier = _earlier_run(folder, fresh, (adapter, checkpoint), overwrite=request.overwrite)
    if earlier is not None and earlier.outcome == "finished" and adapter.is_file():
        return Adaptation(earlier, folder, adapter, already_done=True)
    state = load_checkpoint(checkpoint) if checkpoint.is_file() else None
    resumed = len(state["losses"]) if state else 0
    listener.begin(job, resumed)
    seed = derived_seed(request.seed, "init")
    architecture, network, random = build_adaptable_network(
        job.card,
        job.weights,
        job.labels,
        len(job.channels),
        seed=seed,
        matched=job.matched,
        unmatched_never=not job.spec.trains,
    )
    adapted = apply_method(
        architecture, network, request.method, job.config, job.beside, seed, random
    )
    run = fresh.model_copy(update={"trained_parameters": count_parameters(network, trainable=True)})
    watch = _Watch(job, run, folder, listener)
    cached = _cached_support(
        job, store, listener
    )  # takes long: what can be refused was refused before
    write_document(folder / "support.json", job.support)
    write_document(folder / "run.json", run)
    watch.tell("fseft_run_start", epoch=1 + resumed)
    try:
        run = _train(job, run, architecture, adapted, cached, store, watch, state)
        write_adapter(adapter, adapted.state_dict(), _manifest(job, run), half=request.half)
        write_document(folder / "run.json", run)
    except Exception as error:
        outcome = str(error) if isinstance(error, FseftError) else summarise_exception(error)
        watch.tell("fseft_run_end", outcome=outcome)
        raise
    watch.run = run
    watch.tell("fseft_checkpoint_saved", path=adapter)
    watch.tell("fseft_run_end", outcome="finished")
    checkpoint.unlink(missing_ok=True)
    return Adaptation(run, folder, adapter, resumed_from=resumed)


def _run_document(job: AdaptConfig) -> Run:
    request = job.request
    return Run(
        dataset=job.plan.dataset,
        model=request.model,
        method=request.method,
        config=job.config,
        recipe={
            **job.recipe.model_dump(mode="json"),
            "minutes": request.minutes,
            "half": request.half,
        },
        labels=job.labels,
        **job.beside,
        k=request.k,
        seed=request.seed,
        sources=_sources(job),
        trained_parameters=0,
        backbone={"sha256": job.backbone_sha256, **job.card.provenance} if job.weights else {},
        head_rows=job.matched,
        plugins=_provenance(request, job.plan.architecture),
    )


def _sources(job: AdaptConfig) -> dict[str, str]:
    """What the trained tensors depend on, besides what `Run` says itself; the plan's prose is not of it."""
    plan = job.plan
    chosen = (
        plan.preprocessing.model_dump(mode="json"),
        plan.crops_per_step,
        plan.architecture,
        plan.hparams,
    )
    return {
        SUPPORT: ", ".join(job.support.cases),
        "data": digest(job.contents),
        "plan": digest(chosen, plan.device),
        "weights": job.backbone_sha256 or "",
    }


def _provenance(request: AdaptRequest, architecture: str) -> tuple[Provenance, ...]:
    known = registry()
    found = [
        known.provenance("method", request.method),
        known.provenance("architecture", architecture),
    ]
    if ":" in request.model or request.model in known.names("model"):
        found.append(known.provenance("model", request.model))
    return tuple(found)


def _earlier_run(
    folder: Path, fresh: Run, results: tuple[Path, ...], *, overwrite: bool
) -> Run | None:
    """The run that was here before, if it was asked for the same thing.

    Raises:
        FseftError: It was asked for something else, and has results that are not to be overwritten.
    """
    path = folder / "run.json"
    earlier = read_document(path, Run) if path.is_file() else None
    other = _differences(earlier, fresh) if earlier else "unknown settings"
    if not other and not overwrite:
        return earlier
    left = [result for result in results if result.is_file()]
    if left and not overwrite:
        raise FseftError(
            f"holds a run with {other}",
            file=folder,
            hint="Give the same settings to go on with it, another --output, or --overwrite.",
        )
    for result in left:
        result.unlink()
    return None


def _differences(earlier: Run, fresh: Run) -> str:
    """What was asked for otherwise: `rank 8, not 4`; empty where nothing was."""
    config = registry().method(fresh.method).config
    before, now = _settings(earlier, config), _settings(fresh, config)
    keys = [key for key in now if before.get(key) != now[key]]
    told = [f"{key} {_value(before.get(key))}, not {_value(now[key])}" for key in keys]
    told += [
        f"{name} {getattr(earlier, name)}"
        for name in ("dataset", "model", "method")
        if getattr(earlier, name) != getattr(fresh, name)
    ]
    if earlier.labels != fresh.labels:
        told.append(f"structures {', '.join(earlier.labels)}")
    elif earlier.head_rows != fresh.head_rows:
        rows = ", ".join(f"{name}={known}" for name, known in earlier.head_rows.items())
        told.append(f"rows of the head from {rows or 'none'}")
    versions = {
        one.distribution: one.version for one in fresh.plugins if one.distribution != "fseft"
    }
    told += [
        f"{one.distribution} {one.version}, not {versions[one.distribution]}"
        for one in earlier.plugins
        if versions.get(one.distribution, one.version) != one.version
    ]
    others = ("decoder", "bottleneck", "k", "seed")
    told += [f"another {name}" for name in others if getattr(earlier, name) != getattr(fresh, name)]
    other = [name for name in fresh.sources if earlier.sources.get(name) != fresh.sources[name]]
    if SUPPORT in other:  # whose data are others for that alone
        told.append(f"{SUPPORT} {earlier.sources.get(SUPPORT, 'unknown')}")
    told += [
        f"other {name}"
        for name in other
        if not (name == SUPPORT or (name == "data" and SUPPORT in other))
    ]
    return "; ".join(told)


def _settings(run: Run, config: type[Config]) -> dict[str, Any]:
    """Return the settings of the method and of the training under their current names.

    Training settings that an earlier version did not have count with their defaults.
    """
    defaults = TrainingConfig().model_dump(mode="json")
    return {**config.upgrade(run.config), **defaults, **TrainingConfig.upgrade(run.recipe)}


def _value(value: object) -> str:
    return "unset" if value is None else str(value)


def _cached_support(job: AdaptConfig, store: Workspace, listener: Listener) -> list[CachedCase]:
    cases = job.support.cases
    with listener.progress(len(cases), "preprocess") as done:
        cache = preprocess(
            job.request.folder,
            job.plan,
            store,
            workers=job.request.workers,
            cases=cases,
            progress=done,
        )
    return [open_case(cache.folder, name) for name in cases]


class _Watch:
    """The reporters of one run, and the caller; an error of a reporter is told once and ends nothing."""

    def __init__(self, job: AdaptConfig, run: Run, folder: Path, listener: Listener) -> None:
        self.run, self.folder, self.listener = run, folder, listener
        self.reporters = observers_of(job.request.reporters, folder)
        self.problems: set[str] = set()

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call an observer hook."""
        for problem in notify(self.reporters, hook, run=self.run, **arguments):
            if problem not in self.problems:  # what fails at each epoch is told once
                self.listener.warn(problem)
            self.problems.add(problem)

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done."""
        metrics = {
            "loss": epoch.loss,
            "learning_rate": epoch.learning_rate,
            "seconds": epoch.seconds,
        }
        self.tell("fseft_epoch_end", epoch=epoch.number, metrics=metrics)
        self.listener.epoch(epoch)

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint."""
        save_checkpoint(self.folder / "checkpoint.pt", state)
        self.tell("fseft_checkpoint_saved", path=self.folder / "checkpoint.pt")


def _train(
    job: AdaptConfig,
    run: Run,
    architecture: Architecture,
    adapted: AdaptedNetwork,
    cached: list[CachedCase],
    store: Workspace,
    watch: _Watch,
    state: dict[str, Any] | None,
) -> Run:
    """Train; a run without training is over at once."""
    if not job.spec.trains:
        return run.model_copy(update={"outcome": "finished", "stopped_by": "nothing to train"})
    training = train_adapter(
        job,
        architecture,
        adapted,
        cached,
        store,
        watch.listener,
        state=state,
        on_epoch=watch.epoch,
        save=watch.save,
    )
    if training.step == 0 and training.stopped_by != SOLVED:
        raise FseftError(
            "the time was up before the first training step",
            hint="Give more --minutes, or none. What was computed is kept: run again to go on.",
        )
    if training.stopped_by != SOLVED and is_undertrained(training.losses):
        watch.listener.warn(
            f"the training was too short for its loss to settle ({pluralise(len(training.losses), 'epoch')}, ended by: "
            f"{training.stopped_by}); with more time the adapter will be better"
        )
    return run.model_copy(
        update={
            "outcome": "finished",
            "epochs": len(training.losses),
            "stopped_by": training.stopped_by,
            "final_loss": training.losses[-1] if training.losses else None,
            "seconds": round(training.seconds, 1),
            "trained_parameters": count_parameters(adapted.network, trainable=True),
            "notes": tuple(adapted.notes()),
        }
    )


def _manifest(job: AdaptConfig, run: Run) -> Manifest:
    return Manifest(
        method=registry().provenance("method", job.request.method),
        config=job.config,
        model=job.card.name,
        backbone_sha256=job.backbone_sha256,
        architecture=job.plan.architecture,
        hparams=job.plan.hparams,
        **job.beside,
        preprocessing=job.plan.preprocessing,
        channels=job.channels,
        labels=job.labels,
        support=job.support.cases,
        support_images=job.support_images,
        dataset=job.plan.dataset,
        seed=derived_seed(job.request.seed, "init"),
        mirror=job.recipe.mirror,
        trained_parameters=run.trained_parameters,
        licence=job.card.licence,
        versions=versions(),
    )
