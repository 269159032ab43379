"""Several trainings with different seeds, averaged to one adapter of the same size.

Members start from the same initial weights and differ in their crops, so that their weights can be
averaged (model soups: Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fseft.adaptation.documents import adapter_manifest, run_document
from fseft.adaptation.outcome import (
    has_diverged,
    largest_weight,
    outcome_warnings,
    training_dice,
)
from fseft.adaptation.previous_run import SEEDS, is_usable, previous_run, with_former_crops
from fseft.adaptation.run import (
    Adaptation,
    adapt,
    build_network,
    cached_training_cases,
    recorded_failure,
    write_documents,
)
from fseft.experiment.callbacks import Callbacks
from fseft.learn.training.memory_format import to_device
from fseft.learn.training.prefetch import derived_seed
from fseft.model_zoo.adapter_file import read_tensors, write_adapter
from fseft.model_zoo.adapter_path import NAME
from fseft.model_zoo.combination import weighted_sum
from fseft.schemas import Soup
from fseft.workspace import exclusive_lock, file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from fseft.adaptation.request import AdaptConfig
    from fseft.schemas import Run
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

AVERAGE = "average"


def adapt_seeds(
    config: AdaptConfig, workspace: Workspace, callbacks: Callbacks | None = None
) -> Adaptation:
    """Trains several adapters on the same cases, and writes their average or the best of them.

    The time budget is divided among them. The one with the highest mean Dice on crops of the
    training cases is written, the average if it is among the highest.

    Args:
        config: The resolved configuration, of at least two seeds.
        workspace: Where preprocessed arrays are stored.
        callbacks: Observe all trainings.

    Returns:
        The adaptation; an interrupted training is resumed, and a finished one is not repeated.

    Raises:
        FseftError: The folder contains another run, or a training fails.
    """
    callbacks, folder = callbacks or Callbacks(), config.request.folder(workspace)
    adapter = folder / NAME
    with exclusive_lock(folder):
        if not config.request.overwrite:
            config = with_former_crops(config, folder)
        run = run_document(config)
        previous = previous_run(folder, run, overwrite=config.request.overwrite)
        if previous and previous.outcome == "finished" and is_usable(adapter):
            return Adaptation(previous, folder, adapter, already_done=True)
        write_documents(config, run, folder)
        with recorded_failure(run, folder):
            members = [
                adapt(_member(config, number, folder), workspace, callbacks)
                for number in range(config.request.seeds)
            ]
            run = _write_best(config, members, folder, workspace, callbacks)
    for warning in outcome_warnings(run):
        logger.warning("%s: %s", folder, warning)
    return Adaptation(run, folder, adapter)


def _member(config: AdaptConfig, number: int, folder: Path) -> AdaptConfig:
    """Returns the configuration of one training: other crops from the same initial weights."""
    request = config.request
    changed = replace(
        request,
        seed=derived_seed(request.seed, "member", number) if number else request.seed,
        init_seed=request.seed,
        seeds=1,
        minutes=round(request.minutes / request.seeds, 4) if request.minutes else None,
        output=folder / SEEDS / str(number),
    )
    return replace(config, request=changed)


@dataclass(frozen=True)
class _Result:
    """A member or the average: its tensors, Dice by structure, and whether it diverged."""

    tensors: Mapping[str, Tensor]
    dice: dict[str, float]
    diverged: bool

    @property
    def mean(self) -> float:
        return round(sum(self.dice.values()) / max(1, len(self.dice)), 4)


def _write_best(
    config: AdaptConfig,
    members: Sequence[Adaptation],
    folder: Path,
    workspace: Workspace,
    callbacks: Callbacks,
) -> Run:
    """Scores the members and their average, and writes the best as the adapter of the run."""
    tensors = {str(number): read_tensors(member.adapter) for number, member in enumerate(members)}
    average = mean_tensors([*tensors.values()])
    tensors |= {AVERAGE: average} if average else {}
    epochs = min(member.run.epochs for member in members)
    results = _results(config, tensors, epochs, workspace, callbacks)
    dice = {name: result.mean for name, result in results.items()}
    best = max(dice, key=lambda name: (dice[name], name == AVERAGE))
    digests = tuple(file_digest(member.adapter) for member in members)
    soup = Soup(chosen=best, dice=dice, members=digests)
    run = _run(run_document(config), members, soup, results[best])
    manifest = adapter_manifest(config, run)
    write_adapter(folder / NAME, results[best].tensors, manifest, fp16=config.request.half)
    write_documents(config, run, folder)
    return run


def _run(run: Run, members: Sequence[Adaptation], soup: Soup, result: _Result) -> Run:
    """Returns the document of all trainings: their time and epochs, and what was written."""
    runs = [member.run for member in members]
    chosen = None if soup.chosen == AVERAGE else runs[int(soup.chosen)]
    update = {
        "outcome": "finished",
        "trained_parameters": runs[0].trained_parameters,
        "learning_rate": runs[0].learning_rate,
        "epochs": max(member.epochs for member in runs),
        "seconds": round(sum(member.seconds for member in runs), 1),
        "stopped_by": runs[0].stopped_by,
        "final_loss": chosen.final_loss if chosen else None,
        "training_dice": result.dice,
        "diverged": result.diverged,
        "strength": chosen.strength if chosen else None,
        "notes": chosen.notes if chosen else (),
        "soup": soup,
    }
    return run.model_copy(update=update)


def mean_tensors(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor] | None:
    """Averages tensors by name; integers are those of the last member.

    Args:
        members: Tensors of adapters.

    Returns:
        The averages; None if names or shapes differ, as of methods that find their structure.

    Examples:
        >>> import torch
        >>> a, b = {"x": torch.zeros(1)}, {"x": torch.ones(1)}
        >>> mean_tensors([a, b])["x"].item()
        0.5
    """
    first = members[0]
    shapes = {name: tensor.shape for name, tensor in first.items()}
    if any({name: value.shape for name, value in other.items()} != shapes for other in members):
        return None
    return weighted_sum(members, [1 / len(members)] * len(members))


def _results(
    config: AdaptConfig,
    candidates: Mapping[str, Mapping[str, Tensor]],
    epochs: int,
    workspace: Workspace,
    callbacks: Callbacks,
) -> dict[str, _Result]:
    """Scores each candidate on crops of the training cases."""
    results = {}
    with cached_training_cases(config, workspace, callbacks) as cached:
        for name, tensors in candidates.items():
            _, adapted = build_network(config)
            adapted.load_state_dict(tensors)
            largest = largest_weight(adapted)
            to_device(adapted.network, config.plan.device)
            dice = training_dice(config, adapted, cached)
            diverged = has_diverged(largest, epochs, [*dice.values()])
            results[name] = _Result(tensors, dice, diverged)
    return results
