"""Trials of methods on the training cases: trained on one half, scored on crops of the other."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from fseft.adaptation.configure import with_method
from fseft.adaptation.outcome import SCORED_CROPS, training_dice
from fseft.adaptation.run import build_network, cached_training_cases
from fseft.adaptation.training import train_adapter
from fseft.errors import FseftError, pluralise, summarise_exception
from fseft.experiment.callbacks import StageCallbacks
from fseft.learn.training.memory_format import to_device
from fseft.planning.training_step import steps_in_time
from fseft.schemas import Candidate
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fseft.adaptation.request import AdaptConfig
    from fseft.experiment.callbacks import Callbacks
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.volume.cache import CachedCase
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

TIME_FRACTION = 0.15
"""Fraction of the time budget for the training of all trials."""
SCORING_TIME = 0.5
"""Time of the scoring of a trial, as a fraction of its training; at least one case is scored."""
FORWARD_PASSES = 3
"""Forward passes that take as long as a training step."""
MIN_STEPS = 25
"""Steps of a trial below which its score says little: the default method is taken instead."""
BEHIND = 0.05
"""Dice behind the best, on the first half, from which a method is dropped."""


@dataclass(frozen=True)
class Trials:
    """The trials of some methods, the default first, on the training cases of a configuration."""

    config: AdaptConfig
    methods: list[ConfiguredMethod]
    workspace: Workspace

    @property
    def key(self) -> str:
        """Digest of all that the choice depends on, except for the length of the training.

        A run that continues keeps its method.
        """
        config = self.config
        names = {method.name for method in self.methods}
        settings = [
            (method.name, method.config.model_dump(mode="json"))
            for method in config.request.candidates  # in an order that no default changes
            if method.name in names
        ]
        training = config.training.model_dump(mode="json", exclude={"epochs"})
        preprocessing = config.plan.preprocessing.model_dump(mode="json")
        data = (config.support.cases, config.case_contents, config.labels, config.matched)
        parts = (settings, training, preprocessing, data, config.request.seed)
        return digest(*parts, config.backbone_sha256)

    @property
    def length_key(self) -> str:
        """Digest of what the length of the trials depends on."""
        request = self.config.request
        return digest(self.key, request.minutes, request.seeds, self.config.training.epochs)

    def obstacle(self) -> str:
        """Returns why methods cannot be compared; empty if they can."""
        if len(self.methods) == 1:
            return "the only method for a model without weights"
        if self.config.request.k < 2:
            return "one training case, so that none can be held out"
        steps = self._trial_steps()
        if steps < MIN_STEPS:
            return f"the time allows {pluralise(steps, 'step')} per trial, which says little"
        return ""

    def run(
        self,
        results: dict[str, Candidate],
        save: Callable[[dict[str, Candidate]], None],
        callbacks: Callbacks,
    ) -> tuple[Candidate, ...]:
        """Tries all methods on one half of the cases, and the better ones on the other half too.

        Args:
            results: Results of an interrupted run, which are not repeated.
            save: Called with all results after each trial.
            callbacks: Observe the preprocessing and the trials.
        """
        trials, results = 2 * len(self.methods), dict(results)
        with (
            cached_training_cases(self.config, self.workspace, callbacks) as cached,
            callbacks.progress("choose a method", trials) as advance,
        ):

            def try_all(methods: Sequence[ConfiguredMethod], half: int) -> list[Candidate]:
                tried: list[Candidate] = []
                for method in methods:
                    key = f"{method.name} {half}"
                    stage = self._stage(half, len(tried), method, callbacks)
                    candidate = results.get(key) or self._try(method, cached, half, tried, stage)
                    tried.append(candidate)
                    if not candidate.failure:
                        results[key] = candidate
                        save(results)
                    advance(method.name)
                return tried

            first = try_all(self.methods, 0)
            second = try_all(_remaining(self.methods, first), 1)
            for _ in range(trials - len(first) - len(second)):
                advance("dropped")
        return _merged(first, second)

    def _stage(
        self, half: int, tried: int, method: ConfiguredMethod, callbacks: Callbacks
    ) -> Callbacks:
        """Returns callbacks that name the trial: its number, of at most all, and its method."""
        count = len(self.methods)
        number = 1 + half * count + tried
        return StageCallbacks(f"trial {number} of {2 * count}, {method.name}", callbacks)

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
            steps = config.training.epochs * config.request.k * config.request.seeds
        return int(TIME_FRACTION * steps / self._num_trials)

    @property
    def _num_trials(self) -> int:
        """Number of trials that train, if two methods remain for the second half."""
        return 2 + sum(method.spec.trains for method in self.methods)

    def _try(
        self,
        method: ConfiguredMethod,
        cached: list[CachedCase],
        half: int,
        tried: Sequence[Candidate],
        callbacks: Callbacks,
    ) -> Candidate:
        """Trains a method on one half of the cases, and scores it on the other.

        A method that fails, for example as its loss is not finite, is left out with a warning.

        Args:
            method: The method.
            cached: The training cases.
            half: 0 to train on the first, third, ... case, 1 for the others.
            tried: The methods before it, which were scored on the same cases.
            callbacks: Observe the training.
        """
        started = time.monotonic()
        k = self.config.request.k
        training, test = list(range(half, k, 2)), list(range(1 - half, k, 2))
        scored = next((candidate.dice for candidate in tried if candidate.dice), None)
        try:
            steps, dice = self._trained(method, cached, training, test, scored, callbacks)
        except Exception as error:  # of a plugin, or the memory: others may work
            cause = str(error) if isinstance(error, FseftError) else summarise_exception(error)
            logger.warning("the method %s is left out: %s", method.name, cause)
            return Candidate(method=method.name, failure=cause)
        seconds = round(time.monotonic() - started, 1)
        return Candidate(method=method.name, steps=steps, dice=dice, seconds=seconds)

    def _trained(
        self,
        method: ConfiguredMethod,
        cached: list[CachedCase],
        training: Sequence[int],
        test: Sequence[int],
        scored: Mapping[str, float] | None,
        callbacks: Callbacks,
    ) -> tuple[int, dict[str, float]]:
        """Returns the steps of a training on some cases, and the Dice on others."""
        names = self.config.support.cases
        fold = self._fold(method, [names[case] for case in training])
        architecture, adapted = build_network(fold)
        steps = 0
        if method.spec.trains:
            steps = train_adapter(
                fold,
                architecture,
                adapted,
                [cached[case] for case in training],
                self.workspace,
                callbacks,
                state=None,
                save=lambda _: None,
            ).step
        to_device(adapted.network, fold.plan.device)
        if scored is not None:
            chosen = [case for case in test if names[case] in scored]
            return steps, self._scores(fold, adapted, cached, chosen, math.inf)
        minutes = self.config.request.minutes
        seconds = 60 * SCORING_TIME * self._trial_minutes(minutes) if minutes else math.inf
        chosen = list(test[: self._scored_cases()])
        return steps, self._scores(fold, adapted, cached, chosen, seconds)

    def _scored_cases(self) -> int:
        """Returns the number of cases whose scoring takes `SCORING_TIME` of a trial's training."""
        passes = FORWARD_PASSES * self._trial_steps() * self.config.crops_per_step
        crops = SCORING_TIME * passes
        return max(1, int(crops / SCORED_CROPS))

    def _scores(
        self,
        fold: AdaptConfig,
        adapted: AdaptedNetwork,
        cached: list[CachedCase],
        cases: Sequence[int],
        seconds: float,
    ) -> dict[str, float]:
        """Returns the mean Dice of cases, one after the other until the time is over."""
        started, dice = time.monotonic(), {}
        for case in cases:
            structures = training_dice(fold, adapted, [cached[case]])
            if structures:
                mean = float(np.mean([*structures.values()]))
                dice[self.config.support.cases[case]] = round(mean, 4)
            if time.monotonic() - started > seconds:
                break
        return dice

    def _trial_minutes(self, minutes: float) -> float:
        return TIME_FRACTION * minutes / self._num_trials

    def _fold(self, method: ConfiguredMethod, cases: Sequence[str]) -> AdaptConfig:
        """Returns the configuration of a trial: a short training without early stopping."""
        minutes = self.config.request.minutes
        if minutes:
            minutes = self._trial_minutes(minutes)
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


def _remaining(
    methods: Sequence[ConfiguredMethod], results: Sequence[Candidate]
) -> list[ConfiguredMethod]:
    """Returns the methods that are not clearly behind; the default is always among them."""
    best = max(result.mean for result in results)
    return [
        method
        for method, result in zip(methods, results, strict=True)
        if not result.failure and (method is methods[0] or result.mean > best - BEHIND)
    ]


def _merged(first: Sequence[Candidate], second: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Joins the results of both halves; a method that failed in one of them has no scores."""
    by_name = {result.method: result for result in second}
    merged = []
    for result in first:
        other = by_name.get(result.method, Candidate(method=result.method))
        failure = result.failure or other.failure
        merged.append(
            Candidate(
                method=result.method,
                steps=result.steps + other.steps,
                dice={} if failure else {**result.dice, **other.dice},
                seconds=round(result.seconds + other.seconds, 1),
                failure=failure,
            )
        )
    return tuple(merged)
