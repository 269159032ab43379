"""Types and values of settings in the words of a user: `whole number`, `true`, `list of text`."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
}


def named_parts(parts: Mapping[str, str], limit: int = 20) -> str:
    """Formats a remark on each of some cases; equal ones once, the rest as a count.

    Args:
        parts: Case -> remark.
        limit: Largest number of cases that are named.

    Examples:
        >>> named_parts({"a": "7 of 34 slices", "b": "7 of 34 slices", "c": "9 of 36 slices"})
        'a, b (7 of 34 slices), c (9 of 36 slices)'
        >>> named_parts({"a": "some", "b": "some", "c": "all"}, limit=1)
        'a (some) and 2 more'
    """
    named = dict(list(parts.items())[:limit])
    cases: dict[str, list[str]] = {}
    for case, part in named.items():
        cases.setdefault(part, []).append(case)
    text = ", ".join(f"{', '.join(names)} ({part})" for part, names in cases.items())
    more = len(parts) - len(named)
    return f"{text} and {more} more" if more else text


def format_type(annotation: Any) -> str:
    """Formats the type of a setting: the choices of a literal, `list of ...`, or a word.

    Examples:
        >>> format_type(tuple[int | tuple[int, int, int], ...] | None)
        'list of whole number or (whole number, whole number, whole number)'
        >>> format_type(bool)
        'true or false'
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " or ".join(format_type(part) for part in parts if part is not NoneType)
    if origin is tuple and parts[-1] is Ellipsis:
        return f"list of {format_type(parts[0])}"
    if origin is tuple:
        return f"({', '.join(map(format_type, parts))})"
    if origin is dict:
        return "settings"
    return _WORDS.get(annotation) or inspect.formatannotation(annotation).replace("typing.", "")


def format_value(value: object) -> str:
    """Formats a value of a card or a configuration; omits empty values.

    Examples:
        >>> format_value(True), format_value(("a", 2)), format_value(None)
        ('true', 'a, 2', '')
    """
    if isinstance(value, dict):
        items = {key: item for key, item in value.items() if item not in (None, {}, [], "")}
        return "\n".join(f"{key}:{_below(item)}" for key, item in items.items())
    if isinstance(value, list | tuple | frozenset):
        return ", ".join(format_value(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def format_settings(settings: Mapping[str, Any]) -> str:
    """Formats settings as `--set` takes them, separated by spaces.

    Examples:
        >>> format_settings({"loss": "dice", "augment": False})
        'loss=dice augment=false'
    """
    pairs = []
    for key, value in settings.items():
        pairs.append(f"{key}={format_value(value).replace(', ', ',')}")
    return " ".join(pairs)


def _below(item: object) -> str:
    """Formats a value after its key: on the same line, or indented below if it is a mapping."""
    if not isinstance(item, dict):
        return f" {format_value(item)}"
    return "".join(f"\n  {line}" for line in format_value(item).splitlines())
