"""Adapts a model: k labelled volumes, one method, one small file."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fseft.adaptation.checkpoint_file import CheckpointFile
from fseft.adaptation.continuation import load_origin
from fseft.adaptation.documents import adapter_manifest, run_document
from fseft.adaptation.feature_training import SOLVED
from fseft.adaptation.outcome import (
    has_diverged,
    largest_weight,
    outcome_warnings,
    training_dice,
)
from fseft.adaptation.previous_run import CHECKPOINT, is_usable, previous_run, with_former_crops
from fseft.adaptation.strength import choose_strength
from fseft.adaptation.training import train_adapter
from fseft.adaptation.unlabelled_scans import cache_unlabelled
from fseft.errors import FseftError, pluralise, summarise_exception
from fseft.experiment.callbacks import CallbackList, Callbacks
from fseft.experiment.checkpoints import load_checkpoint
from fseft.experiment.reporters import ReporterCallbacks
from fseft.learn.networks.backbone import count_parameters
from fseft.learn.training.early_stopping import is_undertrained
from fseft.model_zoo.adapter_file import apply_method, write_adapter
from fseft.model_zoo.adapter_path import NAME
from fseft.model_zoo.loading import build_adaptable_network
from fseft.planning.preprocessing import cache_folder, preprocess
from fseft.schemas import Run
from fseft.temporaries import in_use
from fseft.workspace import exclusive_lock, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from fseft.adaptation.request import AdaptConfig
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.learn.training_loop import Training
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adaptation:
    """The result of an adaptation.

    Attributes:
        run: The run document, as in `run.json`.
        folder: Folder of the run.
        adapter: The adapter file.
        resumed_from: The epoch of the checkpoint that the run resumed from; 0 for a new run.
        already_done: Whether the folder held the finished run, so that nothing was trained.
    """

    run: Run
    folder: Path
    adapter: Path
    resumed_from: int = 0
    already_done: bool = False


def adapt(
    config: AdaptConfig, workspace: Workspace, callbacks: Callbacks | None = None
) -> Adaptation:
    """Adapts a model to the structures of a dataset.

    Preprocesses the training cases, trains, and writes `adapter.safetensors`, `run.json`,
    `support.json`, `plan.json`, `log.jsonl` and `checkpoint.pt` to the run folder. An interrupted
    run resumes from its checkpoint, and so does a finished run with more minutes or epochs. A
    finished run is not repeated, except with `overwrite`.

    Args:
        config: The resolved configuration, from `fseft.adaptation.configure.configure`.
        workspace: Where preprocessed arrays, features and runs are stored.
        callbacks: Observe the preprocessing and the training.

    Raises:
        FseftError: The folder contains a run with other settings, another process works in it, or
            training fails.
    """
    request = config.request
    folder = request.folder(workspace)
    with exclusive_lock(folder):
        if not request.overwrite:
            config = with_former_crops(config, folder)
        run, adapter = run_document(config), folder / NAME
        previous = previous_run(folder, run, overwrite=request.overwrite)
        if previous and previous.outcome == "finished" and is_usable(adapter):
            result = Adaptation(previous, folder, adapter, already_done=True)
        else:
            result = _adapt(config, run, folder, workspace, callbacks or Callbacks())
    for warning in outcome_warnings(result.run):
        logger.warning("%s: %s", folder, warning)
    return result


def _adapt(
    config: AdaptConfig, run: Run, folder: Path, workspace: Workspace, callbacks: Callbacks
) -> Adaptation:
    """Trains in a folder that this process has locked."""
    state, adapter = _load_state(folder / CHECKPOINT), folder / NAME
    resumed_from = len(state["losses"]) if state else 0
    callbacks.on_start(config, 1 + resumed_from)
    architecture, adapted = build_network(config)
    run = _with_network(run, adapted, config, folder, resumed_from)
    reporters = ReporterCallbacks(config.request.reporters, folder)
    events = CallbackList((reporters, callbacks))
    # Preprocessing takes long: everything that can be refused was refused before.
    with cached_training_cases(config, workspace, callbacks) as cached:
        unlabelled = cache_unlabelled(config, workspace, callbacks)
        write_documents(config, run, folder)
        reporters.start(run, 1 + resumed_from)
        with recorded_failure(run, folder):
            with _reported(events):
                run = _train(
                    config,
                    run,
                    architecture,
                    adapted,
                    cached,
                    unlabelled,
                    workspace,
                    folder,
                    events,
                    state,
                )
                _write_adapter(config, run, adapted, adapter)
                reporters.run = run
                events.on_checkpoint_saved(adapter)
            # Last, as it marks the run as finished: a run killed before reports its end again.
            write_documents(config, run, folder)
    return Adaptation(run, folder, adapter, resumed_from=resumed_from)


def _load_state(checkpoint: Path) -> dict[str, Any] | None:
    return load_checkpoint(checkpoint) if checkpoint.is_file() else None


def _with_network(
    run: Run, adapted: AdaptedNetwork, config: AdaptConfig, folder: Path, resumed_from: int
) -> Run:
    """Adds the number of trained parameters, and the learning rate that they are trained with.

    A run that resumes keeps the rate of its optimizer, as the default may be another by now.
    """
    count = count_parameters(adapted.network, trainable=True)
    rate = (config.training.learning_rate or adapted.learning_rate) if count else None
    if resumed_from:
        rate = read_document(folder / "run.json", Run).learning_rate
    return run.model_copy(update={"trained_parameters": count, "learning_rate": rate})


@contextmanager
def _reported(events: Callbacks) -> Iterator[None]:
    """Reports how the context ends."""
    try:
        yield
    except Exception as error:
        is_user_error = isinstance(error, FseftError)
        events.on_end(str(error) if is_user_error else summarise_exception(error))
        raise
    events.on_end("finished")


@contextmanager
def recorded_failure(run: Run, folder: Path) -> Iterator[None]:
    """Writes to `run.json` that the run failed or was interrupted, and why.

    Args:
        run: The run so far.
        folder: Folder of the run.
    """
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, Exception)
        cause = str(error) if isinstance(error, FseftError) else summarise_exception(error)
        update = {"outcome": "failed" if failed else "interrupted", "stopped_by": cause}
        with suppress(FseftError):  # such as a full disk, which may be the cause itself
            write_document(folder / "run.json", run.model_copy(update=update))
        raise


def _write_adapter(config: AdaptConfig, run: Run, adapted: AdaptedNetwork, path: Path) -> None:
    manifest = adapter_manifest(config, run)
    write_adapter(path, adapted.state_dict(), manifest, fp16=config.request.half)


def write_documents(config: AdaptConfig, run: Run, folder: Path) -> None:
    """Writes the documents of a run to its folder.

    Args:
        config: The resolved configuration.
        run: The run so far.
        folder: Folder of the run.

    Raises:
        FseftError: The folder cannot be written.
    """
    write_document(folder / "support.json", config.support)
    write_document(folder / "plan.json", config.plan)
    write_document(folder / "run.json", run)


def build_network(config: AdaptConfig) -> tuple[Architecture, AdaptedNetwork]:
    """Builds the model's network with a head for the structures, and applies the method to it.

    The tensors are those of the adapter to start from, if any.

    Args:
        config: The resolved configuration.

    Returns:
        The architecture, and the network before training.
    """
    request = config.request
    seed = request.weights_seed
    architecture, network, missing_keys = build_adaptable_network(
        request.model.card,
        config.weights,
        config.labels,
        config.plan.preprocessing.network_channels,
        seed=seed,
        matched=config.matched,
        suppress_unmatched=not request.method.spec.trains,
    )
    adapted = apply_method(architecture, network, request.method, seed, missing_keys)
    if request.origin is not None:
        rows = [config.continued.get(name) for name in config.labels]
        load_origin(adapted, architecture, request.origin, rows)
    return architecture, adapted


@contextmanager
def cached_training_cases(
    config: AdaptConfig, workspace: Workspace, callbacks: Callbacks
) -> Iterator[list[CachedCase]]:
    """Preprocesses the training cases, and yields their arrays, which no other process removes.

    Args:
        config: The resolved configuration.
        workspace: Where the arrays are stored.
        callbacks: Observe the preprocessing.

    Yields:
        The arrays of the training cases, in their order.
    """
    with in_use(cache_folder(config.plan, workspace)):
        cache = preprocess(
            config.request.dataset,
            config.plan,
            workspace,
            workers=config.request.workers,
            cases=config.support.cases,
            callbacks=callbacks,
        )
        cache.check_contents(config.case_contents)
        cached = [cache.open(name) for name in config.support.cases]
        _check_annotation_kept(config, cached)
        yield cached


def _check_annotation_kept(config: AdaptConfig, cached: list[CachedCase]) -> None:
    """Refuses a grid on which a partly annotated structure has no voxel in any training case."""
    if not config.partly_annotated:
        return
    kept = {value for case in cached for value in case.classes}
    for name, value in config.labels.items():
        if config.labelled_in.get(name) and kept.isdisjoint(config.regions.get(name, (value,))):
            spacing = " x ".join(f"{side:g}" for side in config.plan.preprocessing.spacing_mm)
            raise FseftError(
                f"no annotated voxel of {name!r} is left in any training case at {spacing} mm",
                hint="Set a finer spacing, or annotate more of the structure.",
            )


def _train(
    config: AdaptConfig,
    run: Run,
    architecture: Architecture,
    adapted: AdaptedNetwork,
    cached: list[CachedCase],
    unlabelled: list[CachedCase],
    workspace: Workspace,
    folder: Path,
    callbacks: Callbacks,
    state: dict[str, Any] | None,
) -> Run:
    """Trains, and returns the document of the finished run."""
    method = config.request.method
    if not method.spec.trains:
        return run.model_copy(update={"outcome": "finished", "stopped_by": "nothing to train"})

    initial = adapted.state_dict() if _may_do_harm(config) else {}
    checkpoint = CheckpointFile(config, folder / CHECKPOINT, callbacks)
    state = checkpoint.extended(state)
    with checkpoint.named_if_interrupted():
        training = train_adapter(
            config,
            architecture,
            adapted,
            cached,
            workspace,
            callbacks,
            state=state,
            save=checkpoint.save,
            unlabelled=unlabelled,
        )
    return _finished(config, run, adapted, cached, training, initial)


def _finished(
    config: AdaptConfig,
    run: Run,
    adapted: AdaptedNetwork,
    cached: list[CachedCase],
    training: Training,
    initial: dict[str, Tensor],
) -> Run:
    """Chooses the strength of the changes, if there are initial weights, and scores the result."""
    _warn_if_undertrained(training.losses, training.stopped_by)
    strength = choose_strength(config, adapted, cached, initial) if initial else None
    largest = largest_weight(adapted)
    dice = training_dice(config, adapted, cached)
    return run.model_copy(
        update={
            "outcome": "finished",
            "epochs": len(training.losses),
            "stopped_by": training.stopped_by,
            "final_loss": training.losses[-1] if training.losses else None,
            "training_dice": dice,
            "strength": strength,
            "diverged": has_diverged(largest, len(training.losses), list(dice.values())),
            "seconds": round(training.seconds, 1),
            "trained_parameters": count_parameters(adapted.network, trainable=True),
            "notes": tuple(adapted.notes()),
        }
    )


def _may_do_harm(config: AdaptConfig) -> bool:
    """Returns whether the result is compared with the model without training.

    That is: the method was left to the tool, and the model knows some of the structures.
    """
    return config.request.selection is not None and bool(config.matched)


def _warn_if_undertrained(losses: list[float], stopped_by: str) -> None:
    """Warns if the loss still decreased at the end."""
    if stopped_by != SOLVED and is_undertrained(losses):
        logger.warning(
            "training ended after %s (%s) before the loss converged; more epochs or time may "
            "improve the adapter",
            pluralise(len(losses), "epoch"),
            stopped_by,
        )
