"""The training loop. It is independent of methods, files and datasets."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from fseft.errors import FseftError, summarise_exception
from fseft.learn.training.distributed import ALONE, distribute_like, gather_full_tensor
from fseft.learn.training.early_stopping import has_plateaued
from fseft.learn.training.ema import ExponentialMovingAverage
from fseft.learn.training.optimization import load_schedule, make_optimizer
from fseft.learn.training.progress import Epoch
from fseft.learn.training.running_dice import RunningDice

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.training.distributed import DistributedContext
    from fseft.learn.training.optimization import Schedule
    from fseft.training_config import TrainingConfig


@dataclass
class Training:
    """The state of a training run, except for frozen weights.

    Attributes:
        adapted: The network and its trained parameters.
        optimizer: The optimizer; the `base` of a parameter group is its learning rate at the
            factor 1 of the schedule.
        schedule: Factor of the learning rate, by progress and warm-up fraction.
        ema: Moving average of the trained parameters, if any.
        dice: Dice on the crops of the last steps; who computes the loss updates it.
        losses: Mean training loss of each epoch.
        step: Number of optimizer steps so far.
        progress: Fraction of the schedule that had passed before the current step, 0 to 1.
        seconds: Training time so far.
        stopped_by: Reason for the end of the training; empty while it runs.
    """

    adapted: AdaptedNetwork
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: ExponentialMovingAverage | None = None
    dice: RunningDice = field(default_factory=lambda: RunningDice(()))
    losses: list[float] = field(default_factory=list)
    step: int = 0
    progress: float = 0.0
    seconds: float = 0.0
    stopped_by: str = ""

    def state(self) -> dict[str, Any]:
        """Returns the state as tensors, numbers and lists, which load with `weights_only=True`.

        A collective operation: call it on all ranks.
        """
        return {
            "tensors": self.adapted.state_dict(),
            "method": self.adapted.training_state(),
            "optimizer": gather_full_tensor(self.optimizer.state_dict()),
            "average": gather_full_tensor(self.ema.tensors) if self.ema else [],
            "losses": list(self.losses),
            "dice": self.dice.counts,
            "step": self.step,
            "seconds": self.seconds,
            "stopped_by": self.stopped_by,
        }

    def ema_weights(self) -> AbstractContextManager[None]:
        """Returns a context in which the network has the averaged weights, if there are any."""
        return self.ema.average_parameters() if self.ema else nullcontext()

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from a state that `state` returned.

        Raises:
            FseftError: It is the state of another training.
        """
        try:
            self._restore(state)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            cause = f"the checkpoint does not fit this training ({summarise_exception(error)})"
            raise FseftError(cause, hint="Use `overwrite` to start over.") from error

    def _restore(self, state: dict[str, Any]) -> None:
        self.adapted.load_state_dict(state["tensors"])
        self.adapted.load_training_state(state["method"])
        self.optimizer.load_state_dict(self._sharded(state["optimizer"]))
        if self.ema:
            self.ema.restore(state["average"])
        self.losses = list(state["losses"])
        self.dice.counts = state.get("dice", self.dice.counts)
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.stopped_by = state["stopped_by"]

    def _sharded(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns this rank's shards of an optimizer's state; the whole may not fit the device."""
        groups = self.optimizer.param_groups
        parameters = [parameter for group in groups for parameter in group["params"]]
        moments: dict[int, dict[str, Any]] = {}
        for index, values in state["state"].items():
            parameter = parameters[index]
            moments[index] = {
                name: distribute_like(value, parameter) for name, value in values.items()
            }
        return {**state, "state": moments}


def make_training_state(adapted: AdaptedNetwork, config: TrainingConfig) -> Training:
    """Returns the state before the first step: optimizer, schedule and moving average.

    Args:
        adapted: The network, with the parameters to train.
        config: Optimizer, schedule and decay of the moving average.

    Raises:
        FseftError: No installed package provides the optimizer or the schedule.
    """
    optimizer = make_optimizer(adapted.param_groups, adapted.learning_rate, config)
    ema = None
    if config.ema_decay:
        parameters = [parameter for _, parameter in adapted.trainable_parameters()]
        ema = ExponentialMovingAverage(parameters, config.ema_decay)
    schedule = load_schedule(config.schedule, config.component_settings("schedule"))
    return Training(adapted, optimizer, schedule, ema)


def train(
    training: Training,
    loss_of: Callable[[int], Tensor],
    config: TrainingConfig,
    *,
    steps_per_epoch: int,
    minutes: float | None = None,
    min_steps: int = 1,
    on_step: Callable[[Epoch], None] = lambda _: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
    world: DistributedContext = ALONE,
) -> Training:
    """Trains until the schedule, the early stopping or the time budget ends it.

    Averaged weights, if any, replace the trained ones at the end.

    Args:
        training: The state, from `make_training_state`, maybe restored.
        loss_of: Function of the number of a step that returns its loss. All randomness depends on
            that number, so that a resumed run equals an uninterrupted one.
        config: Epochs, schedule, stopping.
        steps_per_epoch: Optimizer steps per epoch.
        minutes: Time budget, of wall-clock time. The schedule is stretched over it, up to the
            configured epochs.
        min_steps: Steps that are trained even if they exceed the time budget, as on a machine that
            is busy with other things.
        on_step: Called after each step, with the epoch so far.
        on_epoch: Called after each epoch.
        save: Called with the state after some epochs, see `checkpoint_seconds`.
        world: The ranks that train together; the loss is the mean over them.

    Returns:
        The state at the end.

    Raises:
        FseftError: The loss or the gradient is not a finite number.
    """
    clock = _Clock(training, minutes, config.epochs * steps_per_epoch, min_steps, world)
    saved = -math.inf  # save after the first epoch: features may have been extracted before it
    while not training.stopped_by:
        losses: list[float] = []
        while len(losses) < steps_per_epoch and not clock.is_up():
            losses.append(_step(training, loss_of, config, clock))
            on_step(_epoch_so_far(training, losses, clock))
        if losses:
            training.losses.append(sum(losses) / len(losses))
        training.seconds = clock.seconds()
        training.stopped_by = _stop_reason(training, config, clock)
        if losses:
            epoch = _epoch_so_far(training, losses, clock)
            on_epoch(replace(epoch, number=len(training.losses)))
        due = time.monotonic() - saved >= config.checkpoint_seconds
        if training.step and (due or training.stopped_by):
            save(training.state())
            saved = time.monotonic()
    if training.ema:
        training.ema.copy_to()
    return training


class _Clock:
    """Progress of the schedule: by steps, or by the time budget where that ends first."""

    def __init__(
        self,
        training: Training,
        minutes: float | None,
        total: int,
        min_steps: int,
        world: DistributedContext,
    ) -> None:
        self.training = training
        self.total = total
        self.min_steps = min_steps
        self.world = world
        self.budget = math.inf if minutes is None else 60 * minutes
        self.started = time.monotonic() - training.seconds
        self.step_seconds = 0.0

    def seconds(self) -> float:
        """Returns the training time so far, including that before a restart."""
        return time.monotonic() - self.started

    def progress(self) -> float:
        """Returns the fraction of the schedule that has passed, 0 to 1."""
        by_steps = self.training.step / self.total
        by_time = self._synchronised(self.seconds()) / self.budget
        return min(1.0, max(by_steps, by_time))

    def is_up(self) -> bool:
        """Returns whether another step, as long as recent slow ones, would exceed the budget."""
        elapsed = self._synchronised(self.seconds() + self.step_seconds)
        if self.training.step < self.min_steps:
            return False
        return elapsed > self.budget

    def _synchronised(self, seconds: float) -> float:
        """Returns the time of rank 0, so that all ranks take the same decision."""
        return self.world.broadcast(seconds) if math.isfinite(self.budget) else seconds

    def record_step(self, seconds: float) -> None:
        """Updates the duration that the next step is expected to have at most."""
        self.step_seconds = max(seconds, 0.9 * self.step_seconds)


def _epoch_so_far(training: Training, losses: list[float], clock: _Clock) -> Epoch:
    return Epoch(
        number=len(training.losses) + 1,
        loss=sum(losses) / len(losses),
        learning_rate=training.optimizer.param_groups[0]["lr"],
        seconds=clock.seconds(),
        progress=clock.progress(),
        dice=training.dice.scores(),
    )


def _step(
    training: Training, loss_of: Callable[[int], Tensor], config: TrainingConfig, clock: _Clock
) -> float:
    """Trains for a step and returns its loss."""
    began = time.monotonic()
    training.progress = clock.progress()
    factor = training.schedule(training.progress, config.warmup_fraction)
    for group in training.optimizer.param_groups:
        group["lr"] = group["base"] * factor
    loss = _update(training, loss_of, config, clock.world)
    training.step += 1
    if training.ema:
        training.ema.update(training.step)
    training.adapted.on_optimizer_step(training.step, clock.total, training.optimizer)
    clock.record_step(time.monotonic() - began)
    return loss


def _update(
    training: Training,
    loss_of: Callable[[int], Tensor],
    config: TrainingConfig,
    world: DistributedContext,
) -> float:
    """Updates the parameters and returns the mean loss over all ranks."""
    loss = loss_of(training.step)
    regularizer = training.adapted.regularizer()
    total = loss if regularizer is None else loss + regularizer
    _require_finite("loss", world.sum(total), training.step)
    training.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if config.max_grad_norm is not None:
        parameters = [parameter for _, parameter in training.adapted.trainable_parameters()]
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        _require_finite("gradient", gather_full_tensor(norm), training.step)
    training.optimizer.step()
    return float(world.sum(loss)) / world.size


def _require_finite(name: str, value: Tensor, step: int) -> None:
    if not math.isfinite(float(value)):
        raise FseftError(
            f"the {name} is {float(value)} at step {step}",
            hint="Lower the learning rate and run again.",
        )


def _stop_reason(training: Training, config: TrainingConfig, clock: _Clock) -> str:
    """Returns why the training ends now, or an empty string."""
    if clock.is_up():
        return "time budget"
    if training.step >= clock.total:
        return "all epochs"
    if not config.early_stopping:
        return ""
    losses = training.adapted.plateau_losses(training.losses)
    return "plateau of the training loss" if has_plateaued(losses) else ""


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """Returns the context for mixed precision in bfloat16, which needs no loss scaling.

    Args:
        device: `cpu` or `cuda`.
        precision: `fp32`, `bf16`, or `auto`: bf16 on a GPU that supports it, else fp32.
    """
    use_bf16 = precision == "bf16"
    if precision == "auto" and device == "cuda":
        use_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device, dtype=torch.bfloat16) if use_bf16 else nullcontext()
