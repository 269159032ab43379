"""`fseft plugin new`: write a package that extends fseft, complete and with one working example, from templates."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from fseft.errors import FseftError
from fseft.plugin import API_VERSION
from fseft.registry import registry
from fseft.version import __version__
from fseft.workspace import require_empty, write_text

TEMPLATES = Path(__file__).with_name("templates")
"""Folders with what any plugin has, and with what one of each kind has; names of files are templates as well."""

USAGE = {  # by kind: how the example is put to use
    "method": "fseft adapt DATASET --model phantom-tiny --method {name}",
    "model": "fseft models import {name} {name}.pt",
    "architecture": "fseft pretrain DATASET --name my-model --architecture {name}",
    "reader": "fseft plan DATASET",
    "reporter": "fseft adapt DATASET --model phantom-tiny --method lora --reporter {name}",
    "metric": "fseft evaluate PREDICTIONS LABELS --metrics dice,{name}",
}
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
PREFIX = "fseft-"


def new_plugin(name: str, kind: str, folder: Path) -> None:
    """Write the package `fseft-NAME`, which offers one thing of that name.

    Args:
        name: Of the method, model, architecture, reader, reporter or metric.
        kind: A key of `USAGE`.
        folder: Of the package; new or empty.

    Raises:
        FseftError: The name is of another form or taken, or the folder holds something.
    """
    _check(name, kind)
    require_empty(folder)
    words = {
        "name": name,
        "kind": kind,
        "package": f"{PREFIX}{name}".replace("-", "_"),
        "class_name": name.title().replace("-", ""),
        "usage": USAGE[kind].format(name=name),
        "api": API_VERSION,
        "version": __version__,
    }
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - none of it is HTML
    for root in (TEMPLATES / "any", TEMPLATES / kind):
        for template in root.rglob("*.jinja"):
            path, text = str(template.relative_to(root)), template.read_text(encoding="utf-8")
            path, text = (environment.from_string(source).render(words) for source in (path, text))
            write_text(folder / path.removesuffix(".jinja"), text)


def _check(name: str, kind: str) -> None:
    if name.startswith(PREFIX):
        hint = f"Say {name.removeprefix(PREFIX)}: the package is called {name} by itself."
        raise FseftError(f"the name {name!r} begins with {PREFIX!r}", hint=hint)
    if not NAME.fullmatch(name):
        hint = (
            "Take lower case letters and digits, a letter first, with single hyphens between words."
        )
        raise FseftError(f"{name!r} is no name for a {kind}", hint=hint)
    if name in registry().names(kind):
        owner = registry().provenance(kind, name).distribution
        raise FseftError(
            f"there is a {kind} {name!r} already, of {owner}", hint="Take another name."
        )
