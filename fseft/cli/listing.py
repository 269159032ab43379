"""Lists and shows components: `fseft plugins`, `fseft methods` and `fseft show`."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fseft.cli import completion, console
from fseft.cli.formatting import format_settings, format_type, format_value
from fseft.cli.options import Json, Workspace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.api import Component
    from fseft.plugin import Spec
    from fseft.schemas import FrozenModel, ModelCard


SCOPE = {
    "network": "the whole network",
    "body": "the body, without a head of rows",
    "encoder": "the encoder; all other parts start from random weights",
}
"""Content of a model's weights, by the scope of its card."""

SETTING_PREFIX = {
    "loss": "loss.",
    "augmentation": "augment.{name}.",
    "schedule": "schedule.",
    "optimizer": "optimizer.",
}
"""Kind of component -> what its settings are written with, as in `--set loss.alpha=0.3`."""

SHAREABLE = {
    True: "derived models may be shared",
    False: "derived models may not be shared",
    None: "it is unclear whether derived models may be shared",
}


LONG_LIST = 20
"""Number of methods of a package, or of classes, above which not all are listed in full."""

ACCESS_NOTE = (
    "white-box: trains or extends layers of the network. black-box: trains what follows the frozen "
    "network only. `fseft show method NAME` prints the settings of a method."
)


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
    format = "format"  # type: ignore[assignment]  # hides the method of str
    planner = "planner"


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
        lines += [f"problem: {problem}" for problem in entry.problems]
        rows.append((entry.name, entry.package, entry.status, "\n".join(lines)))
    console.show_table(("plugin", "package", "status", "provides"), rows)


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
    rows = []
    packages: dict[str, list[tuple[str, str, str]]] = {}
    for method in components:
        purpose, access = _attributes(method, "recommended_for", "access")
        if purpose:
            rows.append((method.name, purpose, access))
        else:
            row = (method.name, method.spec.summary, access)
            packages.setdefault(method.package, []).append(row)
    console.show_table(("method", "recommended for", "access"), rows)
    for package, others in packages.items():
        _show_package(package, others)
    console.note(ACCESS_NOTE)


def _attributes(component: Component, *names: str) -> tuple[str, ...]:
    """Returns fields that the specs of some kinds have, or an empty text."""
    return tuple(getattr(component.spec, name, "") for name in names)


def _show_package(package: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Prints the methods of a package: a table, or the names alone if they are many."""
    if len(rows) > LONG_LIST:
        names = ", ".join(name for name, _, _ in rows)
        console.show_paragraph(f"{len(rows)} methods of {package}: {names}.")
        return
    title = "other methods" if package.startswith("fseft ") else package
    console.show_table((title, "summary", "access"), rows)


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
    facts.pop("config_schema", None)
    _show_facts(facts | _preset_facts(component.spec))
    if config := getattr(component.spec, "config", None):
        prefix = SETTING_PREFIX.get(kind.value, "").format(name=name)
        _show_config("--set", config, prefix=prefix)
    if kind is Kind.method:
        from fseft.training_config import TrainingConfig

        used = {"learning_rate": component.learning_rate}
        _show_config("--set (training)", TrainingConfig, used)


def _preset_facts(spec: Spec) -> dict[str, str]:
    """Formats presets as the settings that they stand for."""
    facts = {}
    for name, preset in getattr(spec, "presets", {}).items():
        facts[f"preset={name}"] = format_settings(preset.settings)
        if preset.with_decoder:
            settings = format_settings(preset.with_decoder)
            facts[f"preset={name}"] += f"; with a trained decoder {settings}"
    return facts | ({"presets": ""} if facts else {})


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
    """Classes with their indices (0 is the background), and the canonical form of aliases.

    Of many classes, the first ones, unless details are requested.
    """
    from fseft.anatomy.vocabulary import normalise_name, resolve_name

    shown = classes if console.is_verbose() else classes[:LONG_LIST]
    texts = []
    for index, name in enumerate(shown, start=1):
        canonical = resolve_name(name)
        alias = f" ({canonical})" if canonical != normalise_name(name) else ""
        texts.append(f"{index}:{name}{alias}")
    if hidden := len(classes) - len(shown):
        texts.append(f"and {hidden} more (--verbose lists them)")
    return ", ".join(texts)


def _describe(component: Component) -> dict[str, Any]:
    spec = component.spec
    facts: dict[str, Any] = {
        "name": spec.name,
        "summary": spec.summary,
        "reference": spec.reference,
    }
    for key in ("access", "recommended_for"):
        facts |= {key: value} if (value := getattr(spec, key, "")) else {}
    presets = {name: asdict(preset) for name, preset in getattr(spec, "presets", {}).items()}
    facts |= {"presets": presets} if presets else {}
    config = getattr(spec, "config", None)
    return {
        **facts,
        "package": component.package,
        "factory": spec.factory,
        **({"config_schema": config.model_json_schema()} if config else {}),
    }


def _show_facts(facts: dict[str, Any]) -> None:
    console.show_table(
        ("", ""), [(key, format_value(value)) for key, value in facts.items() if value]
    )


def _show_config(
    title: str,
    config: type[FrozenModel],
    used: Mapping[str, Any] | None = None,
    *,
    prefix: str = "",
) -> None:
    """Prints the settings of a configuration.

    Args:
        title: Heading of the names.
        config: The configuration.
        used: Values that replace defaults of None.
        prefix: Text before the names.
    """
    rows = []
    for key, field in config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if default is None:
            default = (used or {}).get(key)
        shown = "required" if field.is_required() else format_value(default)
        rows.append((prefix + key, format_type(field.annotation), shown, field.description or ""))
    if rows:
        console.show_table((title, "type", "default", "description"), rows)
