"""Cross-validation within the training cases of an adapter: an honest score without more labels."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from fseft.adaptation.configure import with_method
from fseft.benchmarking.test_split import hold_out
from fseft.benchmarking.trial import BenchmarkData, TrialConfig, run_trial
from fseft.errors import FseftError, pluralise
from fseft.experiment.callbacks import Callbacks, StageCallbacks
from fseft.metrics.selection import select_metrics
from fseft.model_zoo.adapter_file import change_manifest
from fseft.parallel import default_workers, each_case
from fseft.planning.plan import measure
from fseft.schemas import CrossValidation, ExpectedDice
from fseft.workspace import Workspace, exclusive_lock, write_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fseft.adaptation.request import AdaptConfig, AdaptRequest
    from fseft.adaptation.run import Adaptation
    from fseft.benchmarking.results import Trial
    from fseft.experiment.settings import ConfiguredMethod

logger = logging.getLogger(__name__)

FOLDER = "cross-validation"
LEAVE_ONE_OUT = 10
"""Number of training cases up to which each one is a fold by default."""
DEFAULT_FOLDS = 5
"""Number of folds of more training cases."""
CONFIDENCE = 0.95


def make_folds(cases: Sequence[str], folds: int | None = None) -> tuple[tuple[str, ...], ...]:
    """Divides the training cases into folds of about equal size.

    Args:
        cases: The training cases, in the order in which they were drawn.
        folds: Number of folds; None for leave-one-out, or five folds of more than ten cases.

    Raises:
        FseftError: There are fewer cases than folds, or fewer than two folds.

    Examples:
        >>> make_folds(["a", "b", "c"], 2)
        (('a', 'c'), ('b',))
    """
    count = len(cases)
    number = folds or (count if count <= LEAVE_ONE_OUT else DEFAULT_FOLDS)
    if not 2 <= number <= count:
        raise FseftError(
            f"{pluralise(count, 'training case')} cannot be divided into "
            f"{pluralise(number, 'fold')}",
            hint=f"Use between 2 and {count} folds." if count > 1 else "Use more training cases.",
        )
    return tuple(tuple(cases[first::number]) for first in range(number))


def cross_validate(
    config: AdaptConfig,
    adaptation: Adaptation,
    workspace: Workspace,
    *,
    folds: int | None = None,
    callbacks: Callbacks | None = None,
) -> Adaptation:
    """Scores an adapter's method, settings and data by cross-validation.

    Each fold is predicted by an adapter that is trained on all other training cases, in the same
    way: for the same time or number of steps, with as many seeds, with a plan made for them, and
    with a method chosen on them if it was chosen on the training cases. The result is stored in
    the adapter and in `run.json`. An interrupted cross-validation resumes, and a finished one is
    not repeated.

    Args:
        config: The configuration of the adapter, before the choice of its method.
        adaptation: The finished adaptation.
        workspace: Where preprocessed arrays are stored.
        folds: Number of folds; None for leave-one-out, or five folds of more than ten cases.
        callbacks: Observe the progress.

    Returns:
        The adaptation with the scores in its run document.

    Raises:
        FseftError: There are too few cases, or a fold fails.
    """
    divided = make_folds(config.support.cases, folds)
    previous = adaptation.run.cross_validation
    if previous is not None and previous.folds == divided:
        return adaptation
    configs = _fold_configs(config, adaptation.folder, divided, workspace)
    trials = _run_folds(configs, config, callbacks or Callbacks())
    result = summarise(divided, _dice(trials), list(config.labels))
    run = adaptation.run.model_copy(update={"cross_validation": result})
    with exclusive_lock(adaptation.folder):
        change_manifest(adaptation.adapter, cross_validation=result)
        write_document(adaptation.folder / "run.json", run)
    return replace(adaptation, run=run)


def _fold_configs(
    config: AdaptConfig,
    folder: Path,
    folds: Sequence[Sequence[str]],
    workspace: Workspace,
) -> dict[str, TrialConfig]:
    """Returns an adaptation on all other cases for each fold."""
    request = config.request
    fingerprint = measure(request.dataset, request.model, workspace)
    processes = request.workers if isinstance(request.workers, int) else 1
    threads = max(1, default_workers() // processes) if processes > 1 else 0
    configs = {}
    for number, fold in enumerate(folds, start=1):
        output = folder.absolute() / FOLDER / f"fold-{number}"
        split = hold_out(
            request.dataset,
            fingerprint,
            cases=config.support.cases,
            test=fold,
            k=1,
            folder=output.parent / "labels",
        )
        configs[f"fold {number} of {len(folds)}"] = TrialConfig(
            _fold_request(config, split.pool, output),
            BenchmarkData(split, tuple(config.labels), config.plan.warnings),
            Workspace(workspace.root.absolute()),
            2.0,
            select_metrics(("dice",)),
            threads,
        )
    return configs


def _fold_request(config: AdaptConfig, cases: tuple[str, ...], output: Path) -> AdaptRequest:
    """Returns the request of the same adaptation on fewer cases."""
    request = config.request
    candidates = [_as_many_steps(config, method, len(cases)) for method in request.candidates]
    return replace(
        request,
        method=_as_many_steps(config, request.method, len(cases)),
        candidates=tuple(candidates),
        cases=cases,
        k=len(cases),
        labels=tuple(config.labels),
        unlabelled=config.unlabelled,  # without the cases of the fold
        output=output,
        workers=1,
        reporters=(),
    )


def _as_many_steps(config: AdaptConfig, method: ConfiguredMethod, cases: int) -> ConfiguredMethod:
    """Returns a method with the epochs in which fewer cases are trained for as many steps."""
    method = with_method(config, method).request.method
    epochs = ceil(method.training.epochs * config.request.k / cases)
    training = method.training.model_copy(update={"epochs": epochs})
    return replace(method, training=training)


def _run_folds(
    configs: Mapping[str, TrialConfig], config: AdaptConfig, callbacks: Callbacks
) -> list[Trial]:
    """Trains and scores the folds; their steps are observed where they are trained here."""
    trials: list[Trial] = []
    minutes = config.request.minutes
    length = f", of {minutes:g} {'minute' if minutes == 1 else 'minutes'} each" if minutes else ""
    logger.info("cross-validation: %s%s", pluralise(len(configs), "training"), length)
    workers = config.request.workers
    run_fold = partial(_run_fold, callbacks if workers == 1 else Callbacks())
    folds = {name: (name, fold) for name, fold in configs.items()}
    outcomes = each_case(run_fold, folds.items(), workers=workers)
    with callbacks.progress("cross-validation", len(configs)) as advance:
        for name, outcome in outcomes:
            if isinstance(outcome, FseftError):
                raise outcome
            if outcome.incompatibility:
                raise FseftError(outcome.incompatibility, hint="Use more training cases.")
            trials.append(outcome)
            logger.info("%s: %s", name, _describe(outcome))
            advance(name)
    return trials


def _run_fold(callbacks: Callbacks, fold: tuple[str, TrialConfig]) -> Trial:
    name, config = fold
    return run_trial(config, StageCallbacks(name, callbacks))


def _describe(trial: Trial) -> str:
    """Returns the mean Dice of each case of a fold."""
    parts = []
    for case, scores in _dice([trial]).items():
        mean = f"Dice {np.mean([*scores.values()]):.3f}" if scores else "no structure"
        parts.append(f"{case}, {mean}")
    return "; ".join(parts)


def _dice(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """Returns case -> structure -> Dice."""
    dice: dict[str, dict[str, float]] = {}
    for trial in trials:
        for case, structures in trial.scores.items():
            values = {name: metrics.get("dice") for name, metrics in structures.items()}
            dice[case] = {
                name: round(value, 4) for name, value in values.items() if value is not None
            }
    return dice


def summarise(
    folds: tuple[tuple[str, ...], ...],
    dice: dict[str, dict[str, float]],
    structures: Sequence[str],
) -> CrossValidation:
    """Averages the scores of all folds.

    Args:
        folds: The cases of each fold.
        dice: Case -> structure -> Dice.
        structures: Names of the structures.

    Raises:
        FseftError: No case shows a structure.
    """
    by_structure = {
        name: [scores[name] for scores in dice.values() if name in scores] for name in structures
    }
    means = [float(np.mean([*scores.values()])) for scores in dice.values() if scores]
    if not means:
        raise FseftError("no training case shows a structure", hint="Check the labels.")
    return CrossValidation(
        folds=folds,
        dice=dice,
        expected={name: expected_dice(values) for name, values in by_structure.items() if values},
        mean=expected_dice(means),
    )


def expected_dice(values: Sequence[float]) -> ExpectedDice:
    """Returns the mean with its 95 % interval by Student's t distribution, within 0 and 1.

    Args:
        values: Dice of each case; of one case alone, the interval is from 0 to 1.

    Examples:
        >>> expected_dice([0.8, 0.9]).mean, expected_dice([0.8]).high
        (0.85, 1.0)
    """
    from scipy.stats import t

    count, mean = len(values), float(np.mean(values))
    half = math.inf
    if count > 1:
        error = float(np.std(values, ddof=1)) / math.sqrt(count)
        half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return ExpectedDice(
        mean=round(mean, 4),
        low=round(max(0.0, mean - half), 4),
        high=round(min(1.0, mean + half), 4),
        cases=count,
    )
