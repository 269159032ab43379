"""Values on the command line that are more than one word."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N", int, float)


def numbers(option: str, text: str, count: int, kind: Callable[[str], N]) -> tuple[N, ...] | None:
    """`1.5,1.5,2` -> (1.5, 1.5, 2.0); None for an empty text.

    Raises:
        FseftError: Not that many numbers.
    """
    if not text:
        return None
    try:
        values = tuple(kind(item) for item in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise FseftError(f"{option} {text!r} is not {count} numbers", hint=f"Write for example {option} {'1,' * (count - 1)}1.")
    return values


def names(text: str) -> tuple[str, ...]:
    """`a, b` -> ("a", "b")."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, if it is one of those allowed.

    Raises:
        FseftError: It is not.
    """
    if value not in allowed:
        raise FseftError(f"{option} {value!r} is not known", hint=did_you_mean(value, [a for a in allowed if a]))
    return value
