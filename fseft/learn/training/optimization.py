"""Optimizers and learning-rate schedules by their names."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fseft.learn.training.components import load_component
from fseft.plugin import OptimizerSpec
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

    from fseft.training_config import TrainingConfig

Schedule = Callable[[float, float], float]
"""Factor of the learning rate, by progress (0 to 1) and warm-up fraction."""


def load_schedule(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Schedule:
    """Returns a learning-rate schedule by its name, with its settings.

    Args:
        name: As listed by `fseft show schedule`.
        settings: Values of the schedule's configuration; the others have their defaults.

    Raises:
        FseftError: No installed package provides the name.
    """
    return load_component("schedule", name, settings)


def make_optimizer(
    parameter_groups: Callable[[float], list[dict[str, Any]]],
    default_learning_rate: float,
    config: TrainingConfig,
) -> Optimizer:
    """Returns the optimizer of a training run.

    Args:
        parameter_groups: Function of the learning rate that returns the groups, as
            `AdaptedNetwork.param_groups`. The `base` that is added to each is its learning rate
            at the factor 1 of the schedule.
        default_learning_rate: The method's, which suits AdamW.
        config: Optimizer, learning rate and weight decay.

    Raises:
        FseftError: No installed package provides the optimizer.
    """
    spec = registry().resolve("optimizer", config.optimizer).spec
    assert isinstance(spec, OptimizerSpec)  # noqa: S101 - checked when it was collected
    rate = config.learning_rate or default_learning_rate * spec.learning_rate_factor
    groups = parameter_groups(rate)
    for group in groups:
        group["base"] = rate if config.uniform_learning_rate else group["lr"]
    create = load_component("optimizer", config.optimizer, config.component_settings("optimizer"))
    optimizer: Optimizer = create(groups, config.weight_decay)
    return optimizer
