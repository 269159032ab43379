"""Differences between the settings of two runs, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.registry import registry
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fseft.plugin import Config
    from fseft.schemas import Run

SUPPORT = "support cases"
"""Key of the training cases in the sources of a run, as earlier versions wrote it."""


def describe_differences(previous: Run, new: Run) -> str:
    """Describes how settings differ: `rank 8 (requested 4)`; empty where they do not.

    Args:
        previous: The earlier run in the same folder.
        new: The run that is requested now.
    """
    return "; ".join(
        (
            *_setting_differences(previous, new),
            *_structure_differences(previous, new),
            *_origin_differences(previous, new),
            *_unlabelled_differences(previous, new),
            *_version_differences(previous, new),
            *_source_differences(previous, new),
        )
    )


def _setting_differences(previous: Run, new: Run) -> Iterator[str]:
    config = registry().method(new.method).config
    old_settings = _settings(previous, config)
    for key, value in _settings(new, config).items():
        if old_settings.get(key) != value:
            yield f"{key} {_show(old_settings.get(key))} (requested {_show(value)})"
    for name in ("dataset", "model", "method"):
        if getattr(previous, name) != getattr(new, name):
            yield f"{name} {getattr(previous, name)}"
    for name in ("decoder", "bottleneck", "k", "seed"):
        if getattr(previous, name) != getattr(new, name):
            yield f"another {name}"


def _settings(run: Run, config: type[Config]) -> dict[str, Any]:
    """Returns the settings of method and training under their current names.

    Training settings that the document does not contain count with their defaults.
    """
    settings = config.upgrade(run.config)
    settings |= TrainingConfig().model_dump(mode="json")
    settings |= {"minutes": None, "half": False, "seeds": 1}
    settings |= TrainingConfig.upgrade(run.recipe)
    if settings["early_stopping"]:  # the default of earlier versions
        settings["early_stopping"] = None
    return settings


def _structure_differences(previous: Run, new: Run) -> Iterator[str]:
    if previous.labels != new.labels:
        yield f"structures {', '.join(previous.labels)}"
    elif previous.head_rows != new.head_rows:
        rows = ", ".join(f"{name}={row}" for name, row in previous.head_rows.items())
        yield f"rows of the head from {rows or 'none'}"


def _origin_differences(previous: Run, new: Run) -> Iterator[str]:
    if _start(previous) != _start(new):
        yield f"a start from {_start(previous)} (requested {_start(new)})"


def _unlabelled_differences(previous: Run, new: Run) -> Iterator[str]:
    if (previous.unlabelled and previous.unlabelled.sha256) != (
        new.unlabelled and new.unlabelled.sha256
    ):
        names = _unlabelled(previous)
        yield f"scans without labels {names} (requested {_unlabelled(new)})"


def _unlabelled(run: Run) -> str:
    return ", ".join(run.unlabelled.scans) if run.unlabelled else "none"


def _start(run: Run) -> str:
    """Describes what a training starts from."""
    if run.origin is None:
        return "the model"
    rows = ", ".join(f"{name}={row}" for name, row in run.origin.rows.items())
    return f"the adapter {run.origin.sha256[:12]} with the rows {rows or 'none'}"


def _version_differences(previous: Run, new: Run) -> Iterator[str]:
    plugins = [plugin for plugin in new.plugins if plugin.distribution != "fseft"]
    versions = {plugin.distribution: plugin.version for plugin in plugins}
    for plugin in previous.plugins:
        version = versions.get(plugin.distribution, plugin.version)
        owners = {other.distribution for other in new.plugins if other.name == plugin.name}
        if owners and plugin.distribution not in owners:
            yield f"{plugin.name} of {plugin.distribution} (now of {min(owners)})"
        if plugin.version != version:
            yield f"{plugin.distribution} {plugin.version} (installed {version})"


def _source_differences(previous: Run, new: Run) -> Iterator[str]:
    changed = [name for name, source in new.sources.items() if previous.sources.get(name) != source]
    if SUPPORT in changed:
        yield f"training cases {previous.sources.get(SUPPORT, 'unknown')}"
        changed = [name for name in changed if name not in (SUPPORT, "data")]
    for name in changed:
        yield f"other {name}"


def _show(value: object) -> str:
    return "unset" if value is None else str(value)
