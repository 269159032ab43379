"""The training loop. It knows nothing of methods, files or datasets."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from fseft.errors import FseftError
from fseft.learn.training.distributed import ALONE, distribute_like, gather_full_tensor
from fseft.learn.training.ema import ExponentialMovingAverage
from fseft.learn.training.progress import Epoch
from fseft.learn.training.schedules import learning_rate_factor, on_plateau

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.training.distributed import DistributedContext
    from fseft.training_config import TrainingConfig


@dataclass
class Training:
    """A training under way: everything that a checkpoint must hold besides the weights."""

    adapted: AdaptedNetwork
    optimizer: torch.optim.Optimizer
    ema: ExponentialMovingAverage | None = None
    losses: list[float] = field(default_factory=list)
    step: int = 0
    seconds: float = 0.0
    stopped_by: str = ""

    def state(self) -> dict[str, Any]:
        """Plain tensors, numbers and lists: loads with `weights_only=True`. All ranks must ask."""
        return {
            "tensors": self.adapted.state_dict(),
            "method": self.adapted.training_state(),
            "optimizer": gather_full_tensor(self.optimizer.state_dict()),
            "average": gather_full_tensor(self.ema.tensors) if self.ema else [],
            "losses": list(self.losses),
            "step": self.step,
            "seconds": self.seconds,
            "stopped_by": self.stopped_by,
        }

    def ema_weights(self) -> AbstractContextManager[None]:
        """The averaged weights in place while the context lasts, where an average is kept."""
        return self.ema.average_parameters() if self.ema else nullcontext()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken."""
        self.adapted.load_state_dict(state["tensors"])
        self.adapted.load_training_state(state["method"])
        self.optimizer.load_state_dict(self._sharded(state["optimizer"]))
        if self.ema:
            self.ema.restore(state["average"])
        self.losses = list(state["losses"])
        self.step, self.seconds, self.stopped_by = (
            state["step"],
            state["seconds"],
            state["stopped_by"],
        )

    def _sharded(self, state: dict[str, Any]) -> dict[str, Any]:
        """An optimizer's state, of which each rank keeps its own shards: loading all of it would want too much."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = {
            index: {name: distribute_like(one, parameters[index]) for name, one in own.items()}
            for index, own in state["state"].items()
        }
        return {**state, "state": moments}


def make_training_state(adapted: AdaptedNetwork, recipe: TrainingConfig) -> Training:
    """AdamW over the method's parameter groups."""
    rate = recipe.learning_rate or adapted.learning_rate
    groups = adapted.param_groups(rate)
    for group in groups:
        group["base"] = rate if recipe.uniform_learning_rate else group["lr"]
    average = (
        ExponentialMovingAverage([p for _, p in adapted.trainable_parameters()], recipe.ema_decay)
        if recipe.ema_decay
        else None
    )
    return Training(adapted, torch.optim.AdamW(groups, weight_decay=recipe.weight_decay), average)


def train(
    training: Training,
    loss_of: Callable[[int], Tensor],
    recipe: TrainingConfig,
    *,
    steps_per_epoch: int,
    minutes: float | None = None,
    on_step: Callable[[Epoch], None] = lambda _: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
    world: DistributedContext = ALONE,
) -> Training:
    """Train until the schedule, the plateau or the clock ends it; then averaged weights, if any, take their place.

    Args:
        training: Fresh from `make_training_state`, or restored.
        loss_of: The loss of a step, by its number: all randomness hangs on it, so that a resumed run equals an
            uninterrupted one.
        recipe: Epochs, rates, stopping.
        steps_per_epoch: Steps that count as one pass.
        minutes: Time budget. The schedule is stretched over it, as far as the recipe's epochs reach.
        on_step: Told after each step, with the epoch as far as it is.
        on_epoch: Told after each epoch.
        save: Given a state now and then, after whole epochs.
        world: The ranks that train together; the loss of a step is the mean over what `loss_of` gives on each.

    Raises:
        FseftError: The loss is not a finite number.
    """
    clock = _Clock(training, minutes, recipe.epochs * steps_per_epoch, world)
    saved = -math.inf  # the first epoch is worth a checkpoint: much may have led to it
    while not training.stopped_by:
        losses: list[float] = []
        while len(losses) < steps_per_epoch and not clock.is_up():
            losses.append(_step(training, loss_of, recipe, clock))
            on_step(_so_far(training, losses, clock))
        if losses:
            training.losses.append(sum(losses) / len(losses))
        training.seconds = clock.seconds()
        training.stopped_by = _reason(training, recipe, clock)
        if losses:
            on_epoch(replace(_so_far(training, losses, clock), number=len(training.losses)))
        if training.step and (
            time.monotonic() - saved >= recipe.checkpoint_seconds or training.stopped_by
        ):
            save(training.state())
            saved = time.monotonic()
    if training.ema:
        training.ema.copy_to()
    return training


class _Clock:
    """Share of the schedule that is done: by steps, or by the time budget where that comes first."""

    def __init__(
        self, training: Training, minutes: float | None, total: int, world: DistributedContext
    ) -> None:
        self.training, self.total, self.world = training, total, world
        self.budget = math.inf if minutes is None else 60 * minutes
        self.started = time.monotonic() - training.seconds
        self.step_seconds = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def progress(self) -> float:
        return min(
            1.0,
            max(self.training.step / self.total, self._synchronised(self.seconds()) / self.budget),
        )

    def is_up(self) -> bool:
        """Whether one more step, as long as the longest of late, would overrun the budget."""
        return self._synchronised(self.seconds() + self.step_seconds) > self.budget

    def _synchronised(self, seconds: float) -> float:
        """Ranks must not part over the time; without a budget it decides nothing."""
        return self.world.broadcast(seconds) if math.isfinite(self.budget) else seconds

    def took(self, seconds: float) -> None:
        """A step is done; a slow one is remembered for a while."""
        self.step_seconds = max(seconds, 0.9 * self.step_seconds)


def _so_far(training: Training, losses: list[float], clock: _Clock) -> Epoch:
    """The epoch under way."""
    rate = training.optimizer.param_groups[0]["lr"]
    return Epoch(
        len(training.losses) + 1, sum(losses) / len(losses), rate, clock.seconds(), clock.progress()
    )


def _step(
    training: Training, loss_of: Callable[[int], Tensor], recipe: TrainingConfig, clock: _Clock
) -> float:
    began = time.monotonic()
    factor = learning_rate_factor(clock.progress(), recipe.warmup_fraction)
    for group in training.optimizer.param_groups:
        group["lr"] = group["base"] * factor
    value = _update(training, loss_of, recipe, clock.world)
    training.step += 1
    if training.ema:
        training.ema.update(training.step)
    training.adapted.on_optimizer_step(training.step, clock.total, training.optimizer)
    clock.took(time.monotonic() - began)
    return value


def _update(
    training: Training,
    loss_of: Callable[[int], Tensor],
    recipe: TrainingConfig,
    world: DistributedContext,
) -> float:
    """One optimiser step; gives the loss over all ranks."""
    loss = loss_of(training.step)
    extra = training.adapted.regularizer()
    total = loss if extra is None else loss + extra
    _refuse_nan("loss", world.sum(total), training.step)
    training.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if recipe.max_grad_norm is not None:
        norm = torch.nn.utils.clip_grad_norm_(
            [p for _, p in training.adapted.trainable_parameters()], recipe.max_grad_norm
        )
        _refuse_nan("gradient", gather_full_tensor(norm), training.step)
    training.optimizer.step()
    return float(world.sum(loss)) / world.size


def _refuse_nan(what: str, value: Tensor, step: int) -> None:
    if not math.isfinite(float(value)):
        raise FseftError(
            f"the {what} is {float(value)} at step {step}",
            hint="Lower the learning rate and run again.",
        )


def _reason(training: Training, recipe: TrainingConfig, clock: _Clock) -> str:
    if clock.is_up():
        return "time budget"
    if training.step >= clock.total:
        return "all epochs"
    if recipe.early_stopping and on_plateau(training.adapted.plateau_losses(training.losses)):
        return "plateau of the training loss"
    return ""


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Mixed precision: bf16 needs no loss scaling, so fp16 is left alone."""
    native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    wanted = precision == "bf16" or (precision == "auto" and native)
    return torch.autocast(device, dtype=torch.bfloat16) if wanted else nullcontext()
