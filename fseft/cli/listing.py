"""Lists and show components: `fseft plugins`, `fseft methods` and `fseft show`."""

from __future__ import annotations

import inspect
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
)

import typer

from fseft.cli import completion, console
from fseft.cli.options import Json, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.api import Component
    from fseft.schemas import FrozenModel, ModelCard


SCOPE = {
    "network": "the whole network",
    "body": "the body, without a head of rows",
    "encoder": "the encoder; all other parts start from random weights",
}
"""Content of a model's weights, by the scope of its card."""

SHAREABLE = {
    True: "derived models may be shared",
    False: "derived models may not be shared",
    None: "it is unclear whether derived models may be shared",
}


class Kind(str, Enum):
    """Kinds of components."""

    method = "method"
    model = "model"
    architecture = "architecture"
    reader = "reader"
    reporter = "reporter"
    metric = "metric"
    loss = "loss"
    augmentation = "augmentation"
    schedule = "schedule"
    optimizer = "optimizer"
    exporter = "exporter"


def plugins(as_json: Json = False) -> None:
    """List the installed plugins, their components, and their problems.

    For example:

    fseft plugins

    fseft plugins --json
    """
    from fseft import api

    entries = api.list_plugins()
    if as_json:
        keys = ("name", "distribution", "version", "status", "provides", "problems")
        console.show_json([{key: getattr(entry, key) for key in keys} for entry in entries])
        return
    rows = []
    for entry in entries:
        lines = [f"{kind}: {', '.join(names)}" for kind, names in entry.provides.items()]
        problems = "\n".join(entry.problems)
        rows.append((entry.name, entry.package, entry.status, "\n".join(lines), problems))
    console.show_table(("plugin", "package", "status", "provides", "problems"), rows)


def methods(as_json: Json = False) -> None:
    """List the adaptation methods.

    For example:

    fseft methods

    fseft methods --json
    """
    from fseft import api

    components = [api.get_component("method", name) for name in api.list_methods()]
    if as_json:
        console.show_json([_describe(method) for method in components])
        return
    rows = [
        (method.name, getattr(method.spec, "access", ""), method.spec.summary, method.package)
        for method in components
    ]
    console.show_table(("method", "access", "summary", "package"), rows)


def show(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="KIND", help=f"Kind of the component: {', '.join(kind.value for kind in Kind)}."
        ),
    ],
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name; without it, all names are listed.",
            autocompletion=completion.components,
        ),
    ] = "",
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Show a method with its settings, a model, a network, a metric, or another component.

    Without a name, all components of a kind are listed.

    For example:

    fseft show method lora

    fseft show metric
    """
    from fseft import api

    if not name:
        _show_names(kind.value, as_json=as_json)
        return
    if kind is Kind.model:
        show_model(name, workspace, as_json)
        return
    component = api.get_component(kind.value, name)
    facts = _describe(component)
    if as_json:
        console.show_json(facts)
        return
    facts.pop("config_schema")
    _show_facts(facts)
    _show_config("--set", component.spec.config)
    if kind is Kind.method:
        from fseft.training_config import TrainingConfig

        _show_config("--set (training)", TrainingConfig)


def _show_names(kind: str, *, as_json: bool) -> None:
    from fseft import api

    names = api.list_components(kind)
    if as_json:
        console.show_json(names)
        return
    rows = [(name, api.get_component(kind, name).spec.summary) for name in names]
    console.show_table((kind, "summary"), rows)


def show_model(name: str, workspace: Path, as_json: bool) -> None:
    """Prints the card of a model, and the path of its weights or how to get them."""
    from fseft import api

    model = api.get_model(name, workspace)
    if as_json:
        console.show_json({**model.card.model_dump(mode="json"), "present": model.has_weights})
        return
    missing = f"not downloaded. {model.remedy}"
    _show_facts(_card_facts(model.card, str(model.weights_path) if model.has_weights else missing))


def _card_facts(card: ModelCard, weights: str) -> dict[str, Any]:
    """Returns the facts about a model, as text."""
    contract = card.contract
    facts = {"name": card.name, "summary": card.summary, "weights": weights}
    texts = {
        "scope": SCOPE[card.scope],
        "parameters": f"{card.parameters:,}" if card.parameters else "",
        "classes": _numbered(card.classes),
        "shareable": SHAREABLE[card.shareable] if card.licence else "",
        "contract": {
            **contract.model_dump(mode="json"),
            "intensity": {
                modality: intensity.describe() for modality, intensity in contract.intensity.items()
            },
        },
        "provenance": {
            key: value
            for key, value in card.provenance.items()
            if key not in ("load_report", "output")
        },
    }
    return facts | {**card.model_dump(mode="json", exclude={"schema_version"}), **texts}


def _numbered(classes: Sequence[str]) -> str:
    """Classes with their indices (0 is the background), and the canonical form of aliases."""
    from fseft.anatomy.vocabulary import normalise_name, resolve_name

    texts = []
    for index, name in enumerate(classes, start=1):
        canonical = resolve_name(name)
        alias = f" ({canonical})" if canonical != normalise_name(name) else ""
        texts.append(f"{index}:{name}{alias}")
    return ", ".join(texts)


def _describe(component: Component) -> dict[str, Any]:
    spec = component.spec
    facts: dict[str, Any] = {
        "name": spec.name,
        "summary": spec.summary,
        "reference": spec.reference,
    }
    access = getattr(spec, "access", "")
    facts |= {"access": access} if access else {}
    presets = {name: asdict(preset) for name, preset in getattr(spec, "presets", {}).items()}
    facts |= {"presets": presets} if presets else {}
    return {
        **facts,
        "package": component.package,
        "factory": spec.factory,
        "config_schema": spec.config.model_json_schema(),
    }


def _show_facts(facts: dict[str, Any]) -> None:
    console.show_table(("", ""), [(key, _text(value)) for key, value in facts.items() if value])


def _show_config(title: str, config: type[FrozenModel]) -> None:
    rows = [
        (
            key,
            _type(field.annotation),
            "required"
            if field.is_required()
            else _text(field.get_default(call_default_factory=True)),
            field.description or "",
        )
        for key, field in config.model_fields.items()
    ]
    if rows:
        console.show_table((title, "type", "default", "description"), rows)


def _below(item: object) -> str:
    """Formats a value after its key: on the same line, or indented below if it is a mapping."""
    if not isinstance(item, dict):
        return f" {_text(item)}"
    return "".join(f"\n  {line}" for line in _text(item).splitlines())


def _type(annotation: Any) -> str:
    """Formats a type: the choices of a literal, `list of ...`, or its name.

    Examples:
        >>> _type(tuple[int | tuple[int, int, int], ...] | None)
        'list of int or (int, int, int)'
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in parts if part is not NoneType)
    if origin is tuple and parts[-1] is Ellipsis:
        return f"list of {_type(parts[0])}"
    if origin is tuple:
        return f"({', '.join(map(_type, parts))})"
    return inspect.formatannotation(annotation).replace("typing.", "")


def _text(value: object) -> str:
    """Formats a value of a card or a configuration; omits empty values."""
    if isinstance(value, dict):
        items = {key: item for key, item in value.items() if item not in (None, {}, [], "")}
        return "\n".join(f"{key}:{_below(item)}" for key, item in items.items())
    if isinstance(value, list | tuple | frozenset):
        return ", ".join(_text(item) for item in value)
    return str(value)
