"""The built-in components, registered through the hooks of any plugin; imports no torch.

Every module of `methods/`, `architectures/`, `models/`, `readers/`, `reporters/`, `metrics/`,
`losses/`, `augmentations/`, `schedules/`, `optimizers/`, `exporters/`, `formats/` and `planners/`
is found by its file: it defines `SPEC`, or `SPECS`. Subpackages hold code that several modules
share.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from fseft.plugin import hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fseft.plugin import (
        ArchitectureSpec,
        AugmentationSpec,
        ExporterSpec,
        FormatSpec,
        FoundationModelSpec,
        LossSpec,
        MethodSpec,
        MetricSpec,
        OptimizerSpec,
        PlannerSpec,
        ReaderSpec,
        ReporterSpec,
        ScheduleSpec,
    )


def _specs(package: str) -> list[Any]:
    """Returns the specs of all modules of a package; modules import no torch at their top."""
    folder = importlib.import_module(f"fseft.builtin.{package}")
    specs: list[Any] = []
    for info in pkgutil.iter_modules(folder.__path__):
        if not info.ispkg:
            module = importlib.import_module(f"{folder.__name__}.{info.name}")
            specs += getattr(module, "SPECS", None) or (module.SPEC,)
    return specs


@hookimpl
def fseft_methods() -> Iterable[MethodSpec]:
    """Returns the built-in adaptation methods."""
    return _specs("methods")


@hookimpl
def fseft_architectures() -> Iterable[ArchitectureSpec]:
    """Returns the built-in network architectures."""
    return _specs("architectures")


@hookimpl
def fseft_foundation_models() -> Iterable[FoundationModelSpec]:
    """Returns the built-in foundation models."""
    return _specs("models")


@hookimpl
def fseft_dataset_readers() -> Iterable[ReaderSpec]:
    """Returns the built-in dataset layouts."""
    return _specs("readers")


@hookimpl
def fseft_reporters() -> Iterable[ReporterSpec]:
    """Returns the built-in reporters."""
    return _specs("reporters")


@hookimpl
def fseft_metrics() -> Iterable[MetricSpec]:
    """Returns the built-in metrics."""
    return _specs("metrics")


@hookimpl
def fseft_losses() -> Iterable[LossSpec]:
    """Returns the built-in losses."""
    return _specs("losses")


@hookimpl
def fseft_augmentations() -> Iterable[AugmentationSpec]:
    """Returns the built-in augmentations."""
    return _specs("augmentations")


@hookimpl
def fseft_schedules() -> Iterable[ScheduleSpec]:
    """Returns the built-in learning-rate schedules."""
    return _specs("schedules")


@hookimpl
def fseft_optimizers() -> Iterable[OptimizerSpec]:
    """Returns the built-in optimizers."""
    return _specs("optimizers")


@hookimpl
def fseft_exporters() -> Iterable[ExporterSpec]:
    """Returns the built-in file formats of adapted networks."""
    return _specs("exporters")


@hookimpl
def fseft_formats() -> Iterable[FormatSpec]:
    """Returns the built-in file formats of segmentations."""
    return _specs("formats")


@hookimpl
def fseft_planners() -> Iterable[PlannerSpec]:
    """Returns the built-in planners."""
    return _specs("planners")
