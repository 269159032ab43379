"""Losses, augmentations, schedules and optimizers of a training, with their settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fseft.plugin import ConfigurableSpec
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def load_component(kind: str, name: str, settings: Mapping[str, Any]) -> Callable[..., Any]:
    """Imports the factory of a component, with its settings as keyword arguments.

    Args:
        kind: "loss", "augmentation", "schedule" or "optimizer".
        name: Name of the component.
        settings: Setting -> value, as in `TrainingConfig.components`; others have their defaults.

    Raises:
        FseftError: No installed package provides the component.
        ValidationError: A setting is unknown or has an invalid value; see
            `fseft.experiment.settings.check_components`.
    """
    spec = registry().resolve(kind, name).spec
    assert isinstance(spec, ConfigurableSpec)  # noqa: S101 - checked when it was collected
    config = spec.config(**settings)
    factory: Callable[..., Any] = registry().factory(kind, name)
    keywords = {key: getattr(config, key) for key in spec.config.model_fields}
    return partial(factory, **keywords) if keywords else factory
