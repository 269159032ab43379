"""Help of commands for 80 columns: plain placeholders, and options grouped in a fixed order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from typer.core import TyperCommand, TyperGroup

from fseft.cli.options import OUTPUT, PANELS

if TYPE_CHECKING:
    from collections.abc import Iterable


class HelpCommand(TyperCommand):
    """A command with plain placeholders, and with its options in the order of `PANELS`."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.help = _without_line_breaks(self.help or "")

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns arguments and options in the order of the help."""
        parameters = super().get_params(ctx)
        if self._help_option is not None:
            self._help_option.rich_help_panel = OUTPUT
        return sorted(with_placeholders(parameters), key=_position)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the words of the usage line: `DATASET`, or `[NAME]` if it may be omitted."""
        parameters = self.get_params(ctx)
        arguments = [param for param in parameters if param.param_type_name == "argument"]
        words = [param.metavar if param.required else f"[{param.metavar}]" for param in arguments]
        return ["[OPTIONS]", *words]


class HelpGroup(TyperGroup):
    """A group of commands with plain placeholders."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options of the group."""
        return with_placeholders(super().get_params(ctx))


def _without_line_breaks(text: str) -> str:
    """Returns a docstring with one line per paragraph, which the terminal wraps."""
    return "\n\n".join(" ".join(part.split("\n")) for part in text.split("\n\n"))


def with_placeholders(parameters: Iterable[Any]) -> list[Any]:
    """Gives a placeholder to the parameters of Typer without one: `N`, `FOLDER`, `cpu|cuda`."""
    listed = list(parameters)
    for parameter in listed:
        if parameter.metavar is None:
            parameter.metavar = _placeholder(parameter)
        parameter.min = parameter.max = None  # shown as `x>=1`; the value is checked elsewhere
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _no_type
    return listed


def _placeholder(parameter: Any) -> str:
    described = parameter.type_descriptor
    if described.annotation is bool:
        return ""
    if described.choices:
        return "|".join(str(getattr(choice, "value", choice)) for choice in described.choices)
    kinds = {int: "N", float: "NUMBER", Path: "PATH"}
    item = next(iter(get_args(described.annotation)), described.annotation)
    return kinds.get(item, "TEXT")


def _no_type(ctx: object) -> str:  # noqa: ARG001 - the signature of Typer
    """Returns the type of an argument: its name and its help describe it already."""
    return ""


def _position(parameter: Any) -> tuple[int, bool]:
    """Sorts by panel, arguments first; within a panel, required options first."""
    panel = getattr(parameter, "rich_help_panel", None)
    order = PANELS.index(panel) if panel in PANELS else -1
    is_option = parameter.param_type_name == "option"
    return (1 + order if is_option else -1), not parameter.required
