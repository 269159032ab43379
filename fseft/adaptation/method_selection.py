"""Chooses the method of an adaptation on exactly the k training cases.

The candidates are trained briefly on one half of the cases, and scored on crops of the other half;
those that are clearly behind are dropped, and the rest repeats it with the halves exchanged
(successive halving: Jamieson and Talwalkar 2016). Scores are compared case by case.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.adaptation.configure import with_method
from fseft.adaptation.method_trials import Trials
from fseft.adaptation.previous_run import checkpoints
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.settings import configure_method, training_config
from fseft.model_zoo.adapter_path import NAME
from fseft.schemas import Candidate, MethodTrials, Run, Selection
from fseft.training_config import TrainingConfig
from fseft.workspace import exclusive_lock, read_document, write_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from fseft.adaptation.request import AdaptConfig
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.workspace import Workspace

SMALL_NETWORK = 10_000_000
"""Parameters up to which all weights are trained by default, unless the model knows most of the
structures: `full` is behind `lora` on these (docs/results.md). Larger networks need the memory that
`lora` saves."""
LORA = "lora"
TRAINED = (LORA, "full")
"""Methods for structures that are new to the model."""
KNOWN = ("linear-probe", "spatial-adapter")
"""Additional methods for structures that the model has classes for."""
UNTRAINED, FROM_RANDOM = "zero-shot", "scratch"
MARGIN = 0.01
"""Dice by which another method must be better than the default."""
FILE = "method-selection.json"
"""The trials and the choice, in the folder of a run."""


def candidate_methods(
    settings: Mapping[str, Any], model: FoundationModel
) -> list[ConfiguredMethod]:
    """Configures all methods that can be chosen for a model, the default first.

    Args:
        settings: Settings of the training, which apply to all of them.
        model: The model; random weights are trained as a whole.

    Raises:
        FseftError: A setting is unknown, or belongs to one method.
    """
    training_config(TrainingConfig(), settings)
    is_small = 0 < (model.card.parameters or 0) <= SMALL_NETWORK
    trained = TRAINED[::-1] if is_small else TRAINED
    names = (*trained, *KNOWN, UNTRAINED) if model.pretrained else (FROM_RANDOM,)
    return [configure_method(name, settings) for name in names]


def select_method(
    config: AdaptConfig, workspace: Workspace, callbacks: Callbacks | None = None
) -> AdaptConfig:
    """Chooses one of the candidates of a configuration, within its time budget.

    The result of each trial is stored in the folder of the run as soon as it is there.

    Args:
        config: The configuration with the default method, which is the first candidate.
        workspace: Where preprocessed cases and features are stored.
        callbacks: Observe the preprocessing and the trials.

    Returns:
        The configuration with the chosen method and the rest of the time budget, at least half of
        it. The choice of an earlier run in the same folder, with the same settings and cases, is
        kept, also by a longer training.

    Raises:
        FseftError: The folder contains another run.
    """
    request = config.request
    trials = Trials(config, _applicable(config), workspace)
    with exclusive_lock(request.folder(workspace)):
        selection = _stored_or_new(trials, request.folder(workspace), callbacks or Callbacks())
    chosen = next(method for method in trials.methods if method.name == selection.method)
    changed = with_method(config, chosen)
    minutes = changed.request.minutes
    if request.minutes:
        minutes = round(max(request.minutes / 2, request.minutes - selection.seconds / 60), 3)
    rest = replace(changed.request, selection=selection, minutes=minutes, candidates=())
    return replace(changed, request=rest)


def _stored_or_new(trials: Trials, folder: Path, callbacks: Callbacks) -> Selection:
    """Returns the choice of an earlier run in the folder, or chooses, and stores it."""
    path, overwrite = folder / FILE, trials.config.request.overwrite
    stored = MethodTrials(key=trials.length_key)
    if path.is_file() and not overwrite:
        former = read_document(path, MethodTrials)
        if former.selection and former.selection.key == trials.key:
            return former.selection
        stored = former if former.key == stored.key else stored
    if not overwrite and (checkpoints(folder) or (folder / NAME).is_file()):
        selection = None if path.is_file() else _selection_of_run(trials, folder)
        if selection:
            return selection
        cause = "already contains another run"
        raise FseftError(cause, file=folder, hint="Use another `output`, or `overwrite`.")

    def save(results: dict[str, Candidate]) -> None:
        write_document(path, stored.model_copy(update={"results": results}))

    selection = _select(trials, stored.results, save, callbacks)
    write_document(path, stored.model_copy(update={"selection": selection}))
    return selection


def _selection_of_run(trials: Trials, folder: Path) -> Selection | None:
    """Returns the choice in `run.json`, where earlier versions stored it alone.

    Its key is theirs too; other settings or cases are refused when the training starts.
    """
    path = folder / "run.json"
    selection = read_document(path, Run).selection if path.is_file() else None
    names = {method.name for method in trials.methods}
    return selection if selection and selection.method in names else None


def _select(
    trials: Trials,
    results: dict[str, Candidate],
    save: Callable[[dict[str, Candidate]], None],
    callbacks: Callbacks,
) -> Selection:
    """Tries the methods, and chooses one."""
    obstacle, default = trials.obstacle(), trials.methods[0].name
    if obstacle:
        return Selection(key=trials.key, method=default, reason=f"the default: {obstacle}")
    candidates = trials.run(results, save, callbacks)
    method, reason = choose(candidates)
    seconds = round(sum(candidate.seconds for candidate in candidates), 1)
    return Selection(
        key=trials.key, method=method, reason=reason, candidates=candidates, seconds=seconds
    )


def _applicable(config: AdaptConfig) -> list[ConfiguredMethod]:
    """Returns the methods that apply to the model and the structures, the default first.

    The default is `lora` if the model knows most of the structures.
    """
    names = {FROM_RANDOM, *TRAINED}
    has_rows = config.matched and config.request.model.card.scope != "encoder"
    if has_rows and not config.unlabelled:  # which only training on crops uses
        names |= set(KNOWN)
        names |= {UNTRAINED} if len(config.matched) == len(config.labels) else set()
    applicable = [method for method in config.request.candidates if method.name in names]
    if has_rows and 2 * len(config.matched) > len(config.labels):
        applicable.sort(key=lambda method: method.name != LORA)
    if config.plan.options.channels == "all" and config.plan.preprocessing.channel_mode == "all":
        return [method for method in applicable if method.spec.access != "black-box"]
    return applicable


def choose(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """Chooses a method, and says why.

    Args:
        candidates: Scores of the methods on training cases that they were not trained on, the
            default first; a method without scores is left out.

    Returns:
        The method with the highest mean Dice, if the mean of its differences from the default is
        larger than `MARGIN` and than their standard error; the default otherwise, and also with a
        single case, whose difference has no error. And the reason.

    Examples:
        >>> a = Candidate(method="lora", dice={"1": 0.5, "2": 0.6})
        >>> choose([a, Candidate(method="full", dice={"1": 0.6, "2": 0.72})])[0]
        'full'
        >>> choose([a, Candidate(method="full", dice={"1": 0.8, "2": 0.4})])[0]
        'lora'
    """
    scored = [candidate for candidate in candidates if candidate.dice]
    if not scored:
        return candidates[0].method, "the default: no method could be scored"
    default, *others = scored
    best, reason = default, f"no other method was better by more than {MARGIN} Dice and its error"
    for other in others:
        difference, error = _difference(other, default)
        if difference > max(MARGIN, error) and other.mean > best.mean:
            best = other
            reason = (
                f"Dice {other.mean:.3f} against {default.mean:.3f} of {default.method} on "
                f"held-out training cases (difference {difference:+.3f}, standard error "
                f"{error:.3f})"
            )
    return best.method, reason


def _difference(other: Candidate, default: Candidate) -> tuple[float, float]:
    """Returns the mean difference and its standard error, infinite without scores on all cases."""
    cases = list(default.dice)
    if len(cases) < 2 or not other.dice.keys() >= set(cases):
        return 0.0, math.inf
    differences = [other.dice[case] - default.dice[case] for case in cases]
    mean = float(np.mean(differences))
    deviation = float(np.std(differences, ddof=1))
    error = deviation / math.sqrt(len(cases))
    return mean, error
