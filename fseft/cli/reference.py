"""The help of all commands at once, as text or JSON for programs that drive `fseft`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from typer.main import get_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer


def describe_application(app: typer.Typer) -> dict[str, Any]:
    """Describes all commands, their arguments and options, without hidden ones.

    Returns:
        `{"name", "help", "parameters", "commands"}`, nested for command groups.
    """
    return _describe(get_group(app), "fseft")


def _describe(command: Any, name: str) -> dict[str, Any]:
    description = {
        "name": name,
        "help": command.help or "",
        "parameters": [_parameter(param) for param in command.params if not _is_hidden(param)],
    }
    commands = getattr(command, "commands", {})
    if commands:
        nested = (_describe(child, f"{name} {key}") for key, child in commands.items())
        description["commands"] = list(nested)
    return description


def _is_hidden(param: Any) -> bool:
    return bool(getattr(param, "hidden", False))


def _parameter(param: Any) -> dict[str, Any]:
    annotation = param.type_descriptor.annotation
    is_option = param.opts[0].startswith("-")
    default = param.default
    return {
        "name": param.name,
        "kind": "option" if is_option else "argument",
        "metavar": param.metavar or param.name.upper(),
        "flags": [*param.opts, *param.secondary_opts] if is_option else [],
        "type": getattr(annotation, "__name__", str(annotation)),
        "choices": [str(choice) for choice in get_args(annotation)],
        "default": default if isinstance(default, bool | int | float | str) else None,
        "required": param.required,
        "repeatable": param.multiple or param.nargs == -1,
        "help": param.help or "",
    }


def reference_lines(description: dict[str, Any]) -> Iterator[str]:
    """Formats a description as plain lines, a command with its parameters after the other."""
    yield description["name"]
    summary = description["help"].strip().splitlines()
    yield from (f"  {line.strip()}" for line in summary)
    for parameter in description["parameters"]:
        names = ", ".join(parameter["flags"]) or parameter["metavar"]
        yield f"    {names}: {parameter['help']}"
    yield ""
    for command in description.get("commands", ()):
        yield from reference_lines(command)
