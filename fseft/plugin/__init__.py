"""The plugin interface: hooks, and the specs that they return. Imports no torch.

A plugin is an installed package with an entry point in the group `fseft`, which names a module with
functions marked `@hookimpl`. Hooks return *specs*: a name, a summary, a pydantic configuration and
a lazy `factory="package.module:Attribute"`, imported only when the name is selected, so that
listing is fast. Installing a plugin adds names; only the plan or the command line selects one.

Example:
    A module with a method, registered as `[project.entry-points.fseft] mine = "my_package.plugin"`:

    >>> @hookimpl
    ... def fseft_methods():
    ...     return [MethodSpec(name="mine", factory="my_package.method:Mine", summary="My method.")]
"""

from __future__ import annotations

from fseft.plugin.hooks import (
    DICE_METRIC,
    ObserverHooks,
    Reader,
    RegistrationHooks,
    hookimpl,
    hookspec,
)
from fseft.plugin.specs import (
    ArchitectureSpec,
    AugmentationSpec,
    CheckpointSpec,
    ConfigurableSpec,
    ExporterSpec,
    FileFormatSpec,
    FormatSpec,
    FoundationModelSpec,
    LossSpec,
    MethodSpec,
    MetricSpec,
    OptimizerSpec,
    PlannerSpec,
    Preset,
    ReaderSpec,
    ReporterSpec,
    ScheduleSpec,
    Spec,
)
from fseft.schemas import Case, Config, Dataset, ModelCard

__all__ = [
    "API_VERSION",
    "DICE_METRIC",
    "ArchitectureSpec",
    "AugmentationSpec",
    "Case",
    "CheckpointSpec",
    "Config",
    "ConfigurableSpec",
    "Dataset",
    "ExporterSpec",
    "FileFormatSpec",
    "FormatSpec",
    "FoundationModelSpec",
    "LossSpec",
    "MethodSpec",
    "MetricSpec",
    "ModelCard",
    "ObserverHooks",
    "OptimizerSpec",
    "PlannerSpec",
    "Preset",
    "Reader",
    "ReaderSpec",
    "RegistrationHooks",
    "ReporterSpec",
    "ScheduleSpec",
    "Spec",
    "hookimpl",
    "hookspec",
]

API_VERSION = 1
"""Incremented only on an incompatible change. A plugin may require one as `FSEFT_API = 1`."""
