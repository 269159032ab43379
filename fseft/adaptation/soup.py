"""Several trainings with different seeds, averaged to one adapter of the same size.

Members start from the same initial weights and differ in their crops, so that their weights can be
averaged (model soups: Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fseft.adaptation.outcome import training_dice
from fseft.adaptation.run import Adaptation, adapt, build_network, cached_training_cases
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.learn.training.memory_format import to_device
from fseft.learn.training.prefetch import derived_seed
from fseft.model_zoo.adapter_file import NAME, read_manifest, read_tensors, write_adapter
from fseft.model_zoo.combination import weighted_sum
from fseft.schemas import Run, Soup
from fseft.workspace import exclusive_lock, file_digest, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from fseft.adaptation.request import AdaptConfig
    from fseft.workspace import Workspace

FOLDER = "seeds"
AVERAGE = "average"


def adapt_seeds(
    config: AdaptConfig, seeds: int, workspace: Workspace, callbacks: Callbacks | None = None
) -> Adaptation:
    """Trains several adapters on the same cases, and writes their average or the best of them.

    The time budget is divided among them. The one with the highest mean Dice on crops of the
    training cases is written, the average if it is among the highest.

    Args:
        config: The resolved configuration, with the folder of the run as `output`.
        seeds: Number of trainings, at least 2.
        workspace: Where preprocessed arrays are stored.
        callbacks: Observe all trainings.

    Returns:
        The adaptation; an interrupted training is resumed, and a finished one is not repeated.

    Raises:
        FseftError: A training fails, or the folder contains another run.
    """
    callbacks, folder = callbacks or Callbacks(), config.request.output
    if folder is None:
        raise FseftError("several seeds need a folder", hint="Set `output`.")
    members = [
        adapt(_member(config, number, seeds, folder), workspace, callbacks)
        for number in range(seeds)
    ]
    digests = tuple(file_digest(member.adapter) for member in members)
    with exclusive_lock(folder):
        previous = _previous(folder, overwrite=config.request.overwrite)
        if previous and previous.soup and previous.soup.members == digests:
            return Adaptation(previous, folder, folder / NAME, already_done=True)
        if previous:
            cause = "already contains a run with other settings"
            raise FseftError(cause, file=folder, hint="Use another `output`, or `overwrite`.")
        return _write_best(config, members, digests, workspace, callbacks)


def _member(config: AdaptConfig, number: int, seeds: int, folder: Path) -> AdaptConfig:
    """Returns the configuration of one training: other crops from the same initial weights."""
    request = config.request
    changed = replace(
        request,
        seed=derived_seed(request.seed, "member", number) if number else request.seed,
        init_seed=request.seed,
        minutes=round(request.minutes / seeds, 4) if request.minutes else None,
        output=folder / FOLDER / str(number),
    )
    return replace(config, request=changed)


def _previous(folder: Path, *, overwrite: bool) -> Run | None:
    path = folder / "run.json"
    if overwrite or not (path.is_file() and (folder / NAME).is_file()):
        return None
    return read_document(path, Run)


def _write_best(
    config: AdaptConfig,
    members: Sequence[Adaptation],
    digests: tuple[str, ...],
    workspace: Workspace,
    callbacks: Callbacks,
) -> Adaptation:
    """Scores the members and their average, and writes the best as the adapter of the run."""
    candidates = {
        str(number): read_tensors(member.adapter) for number, member in enumerate(members)
    }
    average = mean_tensors([*candidates.values()])
    candidates |= {AVERAGE: average} if average else {}
    dice = _scores(config, candidates, workspace, callbacks)
    best = max(dice, key=lambda name: (dice[name], name == AVERAGE))
    soup = Soup(chosen=best, dice=dice, members=digests)
    run, folder = _run(members, soup), members[0].folder.parents[1]
    manifest = read_manifest(members[0].adapter).model_copy(update={"soup": soup})
    write_adapter(folder / NAME, candidates[best], manifest)
    for name, document in (("support", config.support), ("plan", config.plan), ("run", run)):
        write_document(folder / f"{name}.json", document)
    return Adaptation(run, folder, folder / NAME)


def _run(members: Sequence[Adaptation], soup: Soup) -> Run:
    """Returns the document of all trainings: that of the first, with the time of all."""
    seconds = round(sum(member.run.seconds for member in members), 1)
    changed = {"soup": soup, "seconds": seconds}
    run: Run = members[0].run.model_copy(update=changed)
    return run


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


def _scores(
    config: AdaptConfig,
    candidates: Mapping[str, Mapping[str, Tensor]],
    workspace: Workspace,
    callbacks: Callbacks,
) -> dict[str, float]:
    """Returns the mean Dice of each candidate on crops of the training cases."""
    dice = {}
    with cached_training_cases(config, workspace, callbacks) as cached:
        for name, tensors in candidates.items():
            _, adapted = build_network(config)
            adapted.load_state_dict(tensors)
            to_device(adapted.network, config.plan.device)
            scores = training_dice(config, adapted, cached)
            dice[name] = round(sum(scores.values()) / max(1, len(scores)), 4)
    return dice
