"""Option values of more than one word: lists, pairs, names in files, amounts of memory."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

N = TypeVar("N", int, float)

_MIN_BYTES = 1024  # a smaller number without a unit is a slip
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def numbers(
    option: str, text: str, kind: Callable[[str], N], *, example: str
) -> tuple[N, ...] | None:
    """Parses numbers separated by commas, as many as in the example; None for an empty text.

    Args:
        option: Name of the option, for messages.
        text: Value of the option.
        kind: `int` or `float`.
        example: A valid value, whose count of numbers is required.

    Raises:
        FseftError: The text does not hold that many numbers.

    Examples:
        >>> numbers("--spacing", "1.5,1.5,2", float, example="1,1,1")
        (1.5, 1.5, 2.0)
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


def triple(
    option: str, text: str, kind: Callable[[str], N], *, example: str
) -> tuple[N, N, N] | None:
    """Parses one number per axis, as `numbers` does.

    Args:
        option: Name of the option, for messages.
        text: Value of the option.
        kind: `int` or `float`.
        example: A valid value.

    Raises:
        FseftError: The text does not hold three positive numbers.
    """
    values = numbers(option, text, kind, example=example)
    if values is None:
        return None
    if min(values) <= 0:
        cause = f"{option} {text!r}: must be positive along every axis"
        raise FseftError(cause, hint=f"Write for example {option}={example}.")
    i, j, k = values
    return i, j, k


def parse_spacing(text: str) -> tuple[float, float, float] | None:
    """Parses the value of `--spacing`; errors as for `triple`."""
    return triple("--spacing", text, float, example="2,2,4")


def parse_patch(text: str) -> tuple[int, int, int] | None:
    """Parses the value of `--patch`; errors as for `triple`."""
    return triple("--patch", text, int, example="64,64,32")


def names(texts: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Splits names at commas; an option that is repeated adds to the names.

    Returns:
        The names; None without the option, which differs from an option without a name.

    Examples:
        >>> names(["liver, spleen", "aorta"])
        ('liver', 'spleen', 'aorta')
    """
    if texts is None:
        return None
    items = ",".join([texts] if isinstance(texts, str) else texts).split(",")
    return tuple(item.strip() for item in items if item.strip())


def case_names(texts: Iterable[str] | None) -> tuple[str, ...] | None:
    """Names of cases, and those in text files with one name per line; None without the option.

    Raises:
        FseftError: A text file does not exist, is not text, or contains no name.
    """
    if texts is None:
        return None
    cases: list[str] = []
    for name in names(texts) or ():
        file = Path(name)
        if file.suffix == ".txt" and not file.is_file():
            hint = "Pass a text file with one case name per line."
            raise FseftError("the file does not exist", file=file, hint=hint)
        cases += _lines(file) if file.is_file() else [name]
    return tuple(unicodedata.normalize("NFC", case) for case in cases)  # as case names are


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # without a byte order mark
    except UnicodeDecodeError as error:
        hint = "Pass a text file with one case name per line."
        raise FseftError("is not a text file", file=file, hint=hint) from error
    cases = [line.strip() for line in lines if line.strip()]
    if not cases:
        raise FseftError("contains no case name", file=file, hint="Write one name per line.")
    return cases


def whole_numbers(option: str, texts: Iterable[str], *, minimum: int) -> tuple[int, ...]:
    """Parses whole numbers separated by commas, and drops duplicates.

    Args:
        option: Name of the option, for messages.
        texts: Values of the option.
        minimum: Smallest valid number.

    Raises:
        FseftError: An item is not a whole number, or below the minimum.

    Examples:
        >>> whole_numbers("--k", ["1,5", "5"], minimum=1)
        (1, 5)
    """
    items = names(texts) or ()
    numbers = [int(item) if item.isdecimal() else minimum - 1 for item in items]
    if not items or min(numbers) < minimum:
        cause = f"{option} {','.join(items)!r}: expected whole numbers of at least {minimum}"
        raise FseftError(cause, hint=f"Write for example {option} 1,5.")
    return tuple(dict.fromkeys(numbers))


def named_values(option: str, text: str) -> dict[str, int]:
    """Parses `liver=1,spleen=3`.

    Args:
        option: Name of the option, for messages.
        text: Value of the option.

    Raises:
        FseftError: An item is not of the form name=value.
    """
    try:
        pairs = (item.split("=") for item in names(text) or ())
        return {name.strip(): int(value) for name, value in pairs}
    except ValueError as error:
        cause = f"{option} {text!r}: expected NAME=NUMBER, separated by commas"
        raise FseftError(cause, hint=f"Write for example {option} liver=1,spleen=3.") from error


def label_names(option: str, text: str) -> dict[int, str]:
    """Parses `1=liver,3=spleen`.

    Args:
        option: Name of the option, for messages.
        text: Value of the option.

    Raises:
        FseftError: An item is not of the form value=name, or a value or name occurs twice.

    Examples:
        >>> label_names("--labels", "1=liver,3=spleen")
        {1: 'liver', 3: 'spleen'}
    """
    items = [item.partition("=") for item in names(text) or ()]
    named = {int(value): name.strip() for value, _, name in items if value.strip().isdecimal()}
    if len(set(filter(None, named.values()))) < len(items):
        cause = f"{option} {text!r}: expected value=name, separated by commas, each once"
        raise FseftError(cause, hint=f"Write for example {option} 1=liver,3=spleen.")
    return named


def pairs(option: str, texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Parses `["a=b"]` to `(("a", "b"),)`.

    Args:
        option: Name of the option, for messages.
        texts: Values of the option.

    Raises:
        FseftError: An item has no equals sign.
    """
    split = [text.partition("=") for text in texts]
    for name, sign, _ in split:
        if not sign:
            raise FseftError(f"{option} {name!r}: expected a pair", hint=f"Write {option} a=b.")
    return tuple((name.strip(), value.strip()) for name, _, value in split)


def parse_settings(option: str, texts: Iterable[str], *, example: str = "rank=4") -> dict[str, Any]:
    """Parses `["rank=4", "loss=dice_ce"]` to `{"rank": 4, "loss": "dice_ce"}`.

    Args:
        option: Name of the option, for messages.
        texts: Values of the option.
        example: A valid value, for messages.

    Raises:
        FseftError: A text has no equals sign.
    """
    settings = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign:
            cause = f"{option} {text!r}: expected key=value"
            raise FseftError(cause, hint=f"Write for example {option} {example}.")
        settings[key] = _parse_value(value)
    return settings


def _parse_value(text: str) -> Any:
    """Parses text as JSON, or as JSON values separated by commas, or returns the text."""
    for candidate in (text, f"[{text}]") if "," in text else (text,):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return text


def parse_memory(text: str) -> int | None:
    """Number of bytes in `12GB`, `800 MB`, `16GiB` or a bare number; GB is 10⁹, GiB is 2³⁰.

    None for an empty text.

    Raises:
        FseftError: The text is not an amount of memory.

    Examples:
        >>> parse_memory("12GB")
        12000000000
    """
    if not text:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    number, prefix, binary = match.groups() if match else ("0", "", "")
    if float(number) == 0 or (binary and not prefix):
        cause = f"--memory {text!r} is not an amount of memory"
        raise FseftError(cause, hint="Write for example 12GB.")
    if float(number) < _MIN_BYTES and not prefix:
        cause = f"--memory {text} has no unit, and would be {text} bytes"
        raise FseftError(cause, hint=f"Did you mean {number}GB?")
    unit = 1024 ** list(_UNITS).index(prefix) if binary else _UNITS[prefix]
    return int(float(number) * unit)


def parse_tolerance(text: str) -> float:
    """Returns the millimetres of `2mm` or `2`.

    Raises:
        FseftError: The text is not a length of 0 or more.
    """
    try:
        value = float(text.strip().lower().removesuffix("mm"))
    except ValueError:
        value = -1.0
    if not (math.isfinite(value) and value >= 0):
        raise FseftError(f"the tolerance {text!r} is not a length in mm", hint="Write it as 2mm.")
    return value


def parse_volume(text: str) -> float:
    """Returns the millilitres of `0.5ml` or `0.5`; 0 for an empty text.

    Raises:
        FseftError: The text is not a volume of more than 0.

    Examples:
        >>> parse_volume("0.5ml")
        0.5
    """
    if not text:
        return 0.0
    try:
        value = float(text.strip().lower().removesuffix("ml"))
    except ValueError:
        value = 0.0
    if not (math.isfinite(value) and value > 0):
        cause = f"--remove-small {text!r} is not a volume in ml"
        raise FseftError(cause, hint="Write for example 0.5ml.")
    return value
