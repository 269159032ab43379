"""Values on the command line that are more than one word."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

N = TypeVar("N", int, float)

_LEAST_BYTES = 1024  # a bare number below is a slip
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def numbers(
    option: str, text: str, kind: Callable[[str], N], *, example: str
) -> tuple[N, ...] | None:
    """`1.5,1.5,2` -> (1.5, 1.5, 2.0), as many as in the example; None for an empty text.

    Raises:
        FseftError: Not that many numbers.
    """
    if not text:
        return None
    count = len(example.split(","))
    try:
        values = tuple(kind(item) for item in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or not all(map(math.isfinite, values)):
        raise FseftError(
            f"{option} {text!r} is not {count} {'whole' if kind is int else 'finite'} numbers",
            hint=f"Write for example {option}={example}.",
        )
    return values


def names(texts: str | Iterable[str] | None) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"); an option that is given several times adds to what it was."""
    given = [texts] if isinstance(texts, str) else texts or ()
    return tuple(item.strip() for text in given for item in text.split(",") if item.strip())


def case_names(texts: Iterable[str] | None) -> tuple[str, ...]:
    """Names, and those in text files of names, one per line.

    Raises:
        FseftError: There is no such file, or it is no text.
    """
    found: list[str] = []
    for name in names(texts):
        file = Path(name)
        if file.suffix == ".txt" and not file.is_file():
            raise FseftError(
                "there is no such file",
                file=file,
                hint="Give a text file with one case name per line.",
            )
        try:
            lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else [name]
        except UnicodeDecodeError as error:
            raise FseftError(
                "is no text file", file=file, hint="Give one with a case name per line."
            ) from error
        found += [line.strip() for line in lines if line.strip()]
    return tuple(found)


def whole_numbers(option: str, texts: Iterable[str], *, least: int) -> tuple[int, ...]:
    """`["1,5"]` -> (1, 5), each once.

    Raises:
        FseftError: One is no whole number, or less than the least.
    """
    found = names(texts)
    if not found or not all(text.isdecimal() and int(text) >= least for text in found):
        cause = f"{option} {','.join(found)!r}: no whole numbers of {least} or more"
        raise FseftError(cause, hint=f"Write for example {option} 1,5.")
    return tuple(dict.fromkeys(map(int, found)))


def named_values(option: str, text: str) -> dict[str, int]:
    """`liver=1,spleen=3` -> {"liver": 1, "spleen": 3}.

    Raises:
        FseftError: It is not of this form.
    """
    try:
        return {
            name.strip(): int(value) for name, value in (item.split("=") for item in names(text))
        }
    except ValueError as error:
        raise FseftError(
            f"{option} {text!r} is no list of name=value",
            hint=f"Write for example {option} liver=1,spleen=3.",
        ) from error


def pairs(option: str, texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`["a=b"]` -> (("a", "b"),).

    Raises:
        FseftError: One has no `=`.
    """
    for text in texts:
        if "=" not in text:
            raise FseftError(f"{option} {text!r} is no pair", hint=f"Write {option} name=name.")
    return tuple(
        (left.strip(), right.strip()) for left, _, right in (text.partition("=") for text in texts)
    )


def choice(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, if it is one of those allowed.

    Raises:
        FseftError: It is not.
    """
    if value not in allowed:
        raise FseftError(
            f"{option} {value!r} is not known", hint=did_you_mean(value, [a for a in allowed if a])
        )
    return value


def parse_memory(text: str) -> int:
    """Bytes of `12GB`, `800 MB`, `16GiB` or a bare number of bytes; GB is 10⁹, GiB is 2³⁰.

    Raises:
        FseftError: It is no amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    if match is None or (match[3] and not match[2]) or float(match[1]) == 0:
        raise FseftError(
            f"--memory {text!r} is no amount of memory", hint="Write for example 12GB."
        )
    if float(match[1]) < _LEAST_BYTES and not match[2]:
        raise FseftError(
            f"--memory {text} has no unit, and would be {text} bytes",
            hint=f"Did you mean {match[1]}GB?",
        )
    unit = 1024 ** list(_UNITS).index(match[2]) if match[3] else _UNITS[match[2]]
    return int(float(match[1]) * unit)
