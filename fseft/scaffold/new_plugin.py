"""`fseft plugin new`: create a plugin package with a working example from templates."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from fseft.errors import FseftError
from fseft.plugin import API_VERSION
from fseft.registry import registry
from fseft.version import __version__
from fseft.workspace import atomic_write, require_empty, write_text

TEMPLATES = Path(__file__).with_name("templates")
"""The folder `any` with files of all plugins, and a folder per kind; paths are templates too."""

_ADAPT = "fseft adapt DATASET --model phantom-tiny --method lora"
USAGE = {
    "method": "fseft adapt DATASET --model phantom-tiny --method {name}",
    "model": "fseft models import {name} {name}.pt",
    "architecture": "fseft pretrain DATASET --name my-model --architecture {name}",
    "reader": "fseft plan DATASET",
    "reporter": f"{_ADAPT} --reporter {{name}}",
    "metric": "fseft evaluate PREDICTIONS LABELS --metrics dice,{name}",
    "loss": f"{_ADAPT} --set loss={{name}}",
    "augmentation": f"{_ADAPT} --set augment=default,{{name}}",
    "schedule": f"{_ADAPT} --set schedule={{name}}",
    "optimizer": f"{_ADAPT} --set optimizer={{name}}",
    "planner": "fseft plan DATASET --model phantom-tiny --planner {name}",
    "format": "fseft predict SCANS -o OUTPUT --adapter ADAPTER --format {name}",
    "exporter": "fseft export ADAPTER --to {name} -o OUTPUT",
}
"""Kind of component -> a command that uses the example."""

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
PREFIX = "fseft-"


def new_plugin(name: str, kind: str, folder: Path) -> None:
    """Creates the package `fseft-NAME` with a component.

    Args:
        name: Name of the component.
        kind: Kind of the component, a key of `USAGE`.
        folder: Folder of the package; new or empty.

    Raises:
        FseftError: The name is invalid or taken, or the folder is not empty.
    """
    _check_name(name, kind)
    require_empty(folder)
    variables = {
        "name": name,
        "kind": kind,
        "package": f"{PREFIX}{name}".replace("-", "_"),
        "class_name": name.title().replace("-", ""),
        "usage": USAGE[kind].format(name=name),
        "api": API_VERSION,
        "version": __version__,
    }
    # No escaping: the output is not HTML.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    with atomic_write(folder) as temporary:
        for root in (TEMPLATES / "any", TEMPLATES / kind):
            for template in root.rglob("*.jinja"):
                name_template = environment.from_string(str(template.relative_to(root)))
                text_template = environment.from_string(template.read_text(encoding="utf-8"))
                path = name_template.render(variables).removesuffix(".jinja")
                write_text(temporary / path, text_template.render(variables))


def _check_name(name: str, kind: str) -> None:
    if name.startswith(PREFIX):
        without_prefix = name.removeprefix(PREFIX)
        raise FseftError(
            f"the name {name!r} begins with {PREFIX!r}",
            hint=f"Use {without_prefix}: the package becomes {name}.",
        )
    if not NAME.fullmatch(name):
        raise FseftError(
            f"{name!r} is not a valid name of a {kind}",
            hint="Use lower case letters and digits, a letter first, and single hyphens.",
        )
    if name in registry().names(kind):
        owner = registry().provenance(kind, name).distribution
        raise FseftError(
            f"the {kind} {name!r} exists already, in {owner}", hint="Use another name."
        )
