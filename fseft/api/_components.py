"""Lists plugins and their components, and writes the package of a new plugin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fseft.errors import FseftError
from fseft.plugin import MethodSpec
from fseft.registry import registry

if TYPE_CHECKING:
    from fseft.plugin import Spec
    from fseft.registration import Plugin
    from fseft.schemas import Provenance


@dataclass(frozen=True)
class Component:
    """A component of a plugin.

    Attributes:
        kind: Such as "method", "metric" or "loss".
        name: The name that selects it; `package:name` where two packages offer the same name.
        spec: Its description, with the settings in `spec.config`.
        source: The package that provides it, with its version.
    """

    kind: str
    name: str
    spec: Spec
    source: Provenance

    @property
    def package(self) -> str:
        """The package with its version."""
        return f"{self.source.distribution} {self.source.version}"

    @property
    def learning_rate(self) -> float | None:
        """The default learning rate of a method; None for other components.

        Also None for a method with required settings, or whose library is not installed.
        """
        if not isinstance(self.spec, MethodSpec):
            return None
        try:
            method = registry().create(self.kind, self.name, self.spec.config())
        except (FseftError, ValidationError):
            return None
        rate: float | None = getattr(method, "learning_rate", None)
        return rate


def list_plugins() -> list[Plugin]:
    """Lists the installed plugins with their components and problems.

    Examples:
        >>> list_plugins()[0].name
        'builtin'
    """
    return registry().plugins


def list_components(kind: str) -> list[str]:
    """Lists the names of the components of a kind, those of plugins included.

    Args:
        kind: "method", "model", "architecture", "reader", "reporter", "metric", "loss",
            "augmentation", "schedule", "optimizer", "exporter", "format" or "planner".

    Examples:
        >>> "dice" in list_components("metric")
        True
    """
    return list(registry().registrations(kind))


def list_methods() -> list[str]:
    """Lists the names of the adaptation methods, those of plugins included.

    Examples:
        >>> "lora" in list_methods()
        True
    """
    return list_components("method")


def get_component(kind: str, name: str) -> Component:
    """Looks up a component by its name.

    Args:
        kind: As for `list_components`.
        name: Name of the component.

    Raises:
        FseftError: No package provides the name (with the nearest names), or two do.

    Examples:
        >>> get_component("loss", "dice").spec.summary != ""
        True
    """
    spec = registry().resolve(kind, name).spec
    return Component(kind, name, spec, registry().provenance(kind, name))


def new_plugin(name: str, kind: str, output: str | Path | None = None) -> Path:
    """Writes a package with a working example of a component, tests and CI.

    Args:
        name: Name of the component.
        kind: As for `list_components`.
        output: Folder of the package, new or empty; None for `fseft-NAME`.

    Returns:
        The folder.

    Raises:
        FseftError: The name is invalid or taken, or the folder is not empty.
    """
    from fseft.scaffold import new_plugin as scaffold

    folder = Path(f"{scaffold.PREFIX}{name}" if output is None else output)
    scaffold.new_plugin(name, kind, folder)
    return folder
