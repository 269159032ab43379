"""Chooses the method of an adaptation on exactly the k training cases.

The candidates are trained briefly on one half of the cases, and scored on crops of the other half;
those that are clearly behind are dropped, and the rest repeats it with the halves exchanged
(successive halving: Jamieson and Talwalkar 2016). Scores are compared case by case.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from fseft.adaptation.configure import with_method
from fseft.adaptation.outcome import training_dice
from fseft.adaptation.run import build_network, cached_training_cases
from fseft.adaptation.training import train_adapter
from fseft.errors import pluralise
from fseft.experiment.callbacks import Callbacks
from fseft.experiment.settings import configure_method, training_config
from fseft.learn.training.memory_format import to_device
from fseft.planning.training_step import steps_in_time
from fseft.schemas import Candidate, Run, Selection
from fseft.training_config import TrainingConfig
from fseft.workspace import digest, read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fseft.adaptation.request import AdaptConfig, AdaptRequest
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

SMALL_NETWORK = 10_000_000
"""Parameters up to which all weights are trained by default: `full` is ahead of `lora` in every row
of the table in docs/pretraining.md. Larger networks need the memory that `lora` saves."""
TRAINED = ("lora", "full")
"""Methods for structures that are new to the model."""
KNOWN = ("linear-probe", "spatial-adapter")
"""Additional methods for structures that the model has classes for."""
UNTRAINED, FROM_RANDOM = "zero-shot", "scratch"
TIME_FRACTION = 0.15
"""Fraction of the time budget for the training of all trials; scoring takes about half as long."""
MIN_STEPS = 25
"""Steps of a trial below which its score says little: the default method is taken instead."""
MARGIN = 0.01
"""Dice by which another method must be better than the default."""
BEHIND = 0.05
"""Dice behind the best, on the first half, from which a method is dropped."""


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
    config: AdaptConfig,
    methods: Sequence[ConfiguredMethod],
    workspace: Workspace,
    callbacks: Callbacks | None = None,
) -> AdaptConfig:
    """Chooses a method for a configuration, within its time budget.

    Args:
        config: The configuration with the default method, and a folder of the run.
        methods: From `candidate_methods`.
        workspace: Where preprocessed cases and features are stored.
        callbacks: Observe the preprocessing and the trials.

    Returns:
        The configuration with the chosen method and the rest of the time budget. The choice of an
        earlier run in the same folder, with the same settings and cases, is kept.
    """
    request = config.request
    trials = _Trials(config, _applicable(config, methods), workspace)
    selection = _earlier_selection(request, trials.key) or trials.run(callbacks or Callbacks())
    chosen = next(method for method in methods if method.name == selection.method)
    changed = with_method(config, chosen)
    minutes = changed.request.minutes
    if request.minutes:
        minutes = round(request.minutes - selection.seconds / 60, 3)
    request = replace(changed.request, selection=selection, minutes=minutes)
    return replace(changed, request=request)


def _earlier_selection(request: AdaptRequest, key: str) -> Selection | None:
    """Returns the choice of an earlier run with the same inputs."""
    path = request.output / "run.json" if request.output else None
    if path is None or request.overwrite or not path.is_file():
        return None
    selection = read_document(path, Run).selection
    return selection if selection and selection.key == key else None


def _applicable(config: AdaptConfig, methods: Sequence[ConfiguredMethod]) -> list[ConfiguredMethod]:
    """Returns the methods that apply to the model and the structures, the default first."""
    names = {FROM_RANDOM, *TRAINED}
    if config.matched and config.request.model.card.scope != "encoder":
        names |= set(KNOWN)
        names |= {UNTRAINED} if len(config.matched) == len(config.labels) else set()
    return [method for method in methods if method.name in names]


@dataclass(frozen=True)
class _Trials:
    """The trials of some methods on the training cases of a configuration."""

    config: AdaptConfig
    methods: list[ConfiguredMethod]
    workspace: Workspace

    @property
    def key(self) -> str:
        """Digest of all that the choice depends on."""
        config = self.config
        settings = [(method.name, method.config.model_dump(mode="json")) for method in self.methods]
        training = config.training.model_dump(mode="json")
        preprocessing = config.plan.preprocessing.model_dump(mode="json")
        data = (config.support.cases, config.case_contents, config.labels, config.matched)
        budget = (config.request.minutes, config.request.seed)
        return digest(settings, training, preprocessing, data, budget, config.backbone_sha256)

    def run(self, callbacks: Callbacks) -> Selection:
        """Tries the methods, and chooses one."""
        obstacle = self._obstacle()
        default = self.methods[0].name
        if obstacle:
            return Selection(key=self.key, method=default, reason=f"the default: {obstacle}")
        with cached_training_cases(self.config, self.workspace, callbacks) as cached:
            started = time.monotonic()
            candidates = self._results(cached, callbacks)
            seconds = time.monotonic() - started
        method, reason = choose(candidates)
        return Selection(
            key=self.key,
            method=method,
            reason=reason,
            candidates=candidates,
            seconds=round(seconds, 1),
        )

    def _results(self, cached: list[CachedCase], callbacks: Callbacks) -> tuple[Candidate, ...]:
        """Tries all methods on one half of the cases, and the better ones on the other half too."""
        k, trials = self.config.request.k, 2 * len(self.methods)
        halves = (range(0, k, 2), range(1, k, 2))
        with callbacks.progress("choose a method", trials) as advance:
            first = self._try_all(self.methods, cached, halves, advance)
            remaining = _remaining(self.methods, first)
            second = self._try_all(remaining, cached, halves[::-1], advance)
            for _ in range(trials - len(first) - len(second)):
                advance("dropped")
        return _merged(first, second)

    def _obstacle(self) -> str:
        """Returns why methods cannot be compared; empty if they can."""
        if len(self.methods) == 1:
            return "the only method for a model without weights"
        if self.config.request.k < 2:
            return "one training case, so that none can be held out"
        steps = self._trial_steps()
        if steps < MIN_STEPS:
            return f"the time allows {pluralise(steps, 'step')} per trial, which says little"
        return ""

    def _trial_steps(self) -> int:
        """Estimates the steps of a trial."""
        import torch

        config = self.config
        if config.request.minutes:
            plan = config.plan.model_copy(update={"minutes": config.request.minutes})
            steps = steps_in_time(plan, config.crops_per_step)
            if plan.device == "cpu":
                steps = round(steps * min(torch.get_num_threads(), 4) / 4)
        else:
            steps = config.training.epochs * config.request.k
        return int(TIME_FRACTION * steps / self._num_trials)

    @property
    def _num_trials(self) -> int:
        """Number of trials that train, if two methods remain for the second half."""
        return 2 + sum(method.spec.trains for method in self.methods)

    def _try_all(
        self,
        methods: Sequence[ConfiguredMethod],
        cached: list[CachedCase],
        halves: tuple[range, range],
        advance: Callable[[str], None],
    ) -> list[Candidate]:
        results = []
        for method in methods:
            results.append(self._try(method, cached, *halves))
            advance(method.name)
        return results

    def _try(
        self, method: ConfiguredMethod, cached: list[CachedCase], training: range, test: range
    ) -> Candidate:
        """Trains a method on some of the cases, and scores it on others."""
        started = time.monotonic()
        names = [self.config.support.cases[case] for case in training]
        fold = self._fold(method, names)
        architecture, adapted = build_network(fold)
        steps = 0
        if method.spec.trains:
            steps = train_adapter(
                fold,
                architecture,
                adapted,
                [cached[case] for case in training],
                self.workspace,
                Callbacks(),
                state=None,
                save=lambda _: None,
            ).step
        to_device(adapted.network, fold.plan.device)
        scores = {
            self.config.support.cases[case]: training_dice(fold, adapted, [cached[case]])
            for case in test
        }
        return Candidate(
            method=method.name,
            steps=steps,
            dice={name: _mean(dice) for name, dice in scores.items() if dice},
            seconds=round(time.monotonic() - started, 1),
        )

    def _fold(self, method: ConfiguredMethod, cases: Sequence[str]) -> AdaptConfig:
        """Returns the configuration of a trial: a short training without early stopping."""
        minutes = self.config.request.minutes
        if minutes:
            minutes = TIME_FRACTION * minutes / self._num_trials
        epochs = max(1, ceil(self._trial_steps() / len(cases)))
        training = method.training.model_copy(
            update={
                "epochs": method.training.epochs if minutes else epochs,
                "early_stopping": False,
                "feature_passes": min(2, method.training.feature_passes),
            }
        )
        changed = with_method(self.config, replace(method, training=training))
        support = self.config.support.model_copy(update={"cases": tuple(cases), "k": len(cases)})
        request = replace(changed.request, k=len(cases), minutes=minutes)
        return replace(changed, support=support, request=request)


def _mean(dice: Mapping[str, float]) -> float:
    return round(float(np.mean([*dice.values()])), 4)


def _remaining(
    methods: Sequence[ConfiguredMethod], results: Sequence[Candidate]
) -> list[ConfiguredMethod]:
    """Returns the methods that are not clearly behind; the default is always among them."""
    best = max(result.mean for result in results)
    return [
        method
        for method, result in zip(methods, results, strict=True)
        if method is methods[0] or result.mean > best - BEHIND
    ]


def _merged(first: Sequence[Candidate], second: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Joins the results of both halves."""
    by_name = {result.method: result for result in second}
    merged = []
    for result in first:
        other = by_name.get(result.method, Candidate(method=result.method))
        merged.append(
            Candidate(
                method=result.method,
                steps=result.steps + other.steps,
                dice={**result.dice, **other.dice},
                seconds=round(result.seconds + other.seconds, 1),
            )
        )
    return tuple(merged)


def choose(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """Chooses a method, and says why.

    Args:
        candidates: Scores of the methods on training cases that they were not trained on, the
            default first.

    Returns:
        The method with the highest mean Dice, if the mean of its differences from the default is
        larger than `MARGIN` and than their standard error; the default otherwise. And the reason.

    Examples:
        >>> a = Candidate(method="lora", dice={"1": 0.5, "2": 0.6})
        >>> choose([a, Candidate(method="full", dice={"1": 0.6, "2": 0.72})])[0]
        'full'
        >>> choose([a, Candidate(method="full", dice={"1": 0.8, "2": 0.4})])[0]
        'lora'
    """
    default, *others = candidates
    best, reason = default, ""
    for other in others:
        differences = [other.dice[case] - default.dice[case] for case in _shared(other, default)]
        if len(differences) < len(default.dice):
            continue
        mean = float(np.mean(differences))
        error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
        if mean > max(MARGIN, error) and other.mean > best.mean:
            best = other
            reason = f"Dice {other.mean:.3f} against {default.mean:.3f} of {default.method}"
            reason += f" on held-out training cases (difference {mean:+.3f}, standard error "
            reason += f"{error:.3f})"
    if reason:
        return best.method, reason
    return default.method, f"no other method was better by more than {MARGIN} Dice and its error"


def _shared(first: Candidate, second: Candidate) -> list[str]:
    return [case for case in first.dice if case in second.dice]
