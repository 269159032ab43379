"""Errors of the library, and helpers for their messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic import ValidationError
    from typing_extensions import Self

_MUCH_LESS_SIMILAR = 0.3  # than the most similar name, by the ratio of difflib
_MAX_CHOICES = 20  # names that `did_you_mean` lists


class FseftError(Exception):
    """An error that the user can fix, described in one line: case, file, cause and remedy.

    The command line prints the line without a traceback and exits with status 2.

    Args:
        cause: The problem, with the offending value.
        hint: A sentence that says how to fix it. A parameter of `fseft.api` is in backticks, as in
            "Raise `memory`."; the command line shows the name of its option instead.
        case: The case identifier, if a single case is affected.
        file: The file or folder, if a single one is affected.

    Examples:
        >>> print(FseftError("spacing is 0 mm", case="p07", hint="Correct the header."))
        case p07: spacing is 0 mm. Correct the header.
    """

    def __init__(
        self, cause: str, *, hint: str = "", case: str | None = None, file: Path | str | None = None
    ) -> None:
        super().__init__(cause, hint, case, file)
        self.cause = cause
        self.hint = hint
        self.case = case
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps the keyword arguments when the error is pickled, as between processes."""
        return _rebuild, (type(self), self.cause, self.hint, self.case, self.file)

    def located(self, *, case: str | None = None, file: Path | str | None = None) -> Self:
        """Returns a copy with case and file filled in where they are unset.

        Args:
            case: The case identifier.
            file: The file or folder.

        Returns:
            An error of the same class, with the traceback and cause of this one.
        """
        copy = type(self)(
            self.cause, hint=self.hint, case=self.case or case, file=self.file or file
        )
        copy.__cause__ = self.__cause__
        return copy.with_traceback(self.__traceback__)

    def __str__(self) -> str:
        location = []
        if self.case:
            location.append(f"case {self.case}")
        if self.file:
            location.append(str(self.file))
        line = self.cause
        if location:
            line = f"{', '.join(location)}: {line}"
        if not line.endswith("."):
            line += "."
        return " ".join(f"{line} {self.hint}".split())


class IncompatibleError(FseftError):
    """A method does not support the model or the structures; other methods may."""


class PluginError(FseftError):
    """A plugin cannot be used: it fails to import, or violates the plugin interface."""


def _rebuild(
    kind: type[FseftError], cause: str, hint: str, case: str | None, file: Path | str | None
) -> FseftError:
    return kind(cause, hint=hint, case=case, file=file)


def pluralise(count: int, noun: str) -> str:
    """Returns a count with its noun.

    Args:
        count: Number of items.
        noun: The singular, whose plural ends in "s".

    Examples:
        >>> pluralise(1, "scan"), pluralise(2, "scan")
        ('1 scan', '2 scans')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """Returns the hint for an unknown name: the closest choices, or a list of all of them.

    Args:
        name: The unknown name.
        choices: All valid names.

    Examples:
        >>> did_you_mean("lorra", ["full", "lora"])
        'Did you mean lora?'
    """
    from difflib import SequenceMatcher, get_close_matches

    if near := get_close_matches(name, choices, n=3, cutoff=0.5):
        ratios = [SequenceMatcher(None, choice, name).ratio() for choice in near]
        similar = [
            choice
            for choice, ratio in zip(near, ratios, strict=True)
            if ratio > ratios[0] - _MUCH_LESS_SIMILAR
        ]
        return f"Did you mean {' or '.join(similar)}?"
    if not choices:
        return "None is known."
    listed = ", ".join(sorted(choices)[:_MAX_CHOICES])
    hidden = len(choices) - _MAX_CHOICES
    return f"Known: {listed}{f' and {hidden} more' if hidden > 0 else ''}."


_PLAIN_MESSAGES = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be a valid boolean.*", "must be true or false"),
    (r"Input should be a valid string", "must be text"),
    (r"Input should be a valid (list|tuple)", "must be a list"),
    (r"Input should be a valid dictionary", "must be an object"),
    (r"Input should be greater than or equal to", "must be at least"),
    (r"Input should be less than or equal to", "must be at most"),
    (r"Input should be", "must be"),
    (r"Field required", "is missing"),
    (r"Extra inputs are not permitted", "is unknown"),
)
"""Patterns in messages of pydantic -> plain words."""


def plain_message(message: str) -> str:
    """Returns a message of pydantic in plain words.

    Examples:
        >>> plain_message("Input should be greater than or equal to 1")
        'must be at least 1'
        >>> plain_message("Input should be 'zero' or 'pissa'")
        "must be 'zero' or 'pissa'"
    """
    for pattern, plain in _PLAIN_MESSAGES:
        message = re.sub(pattern, plain, message)
    return message


def describe_validation(error: ValidationError) -> str:
    """Describes the first problem that pydantic found, with the place: `labels.liver: is missing`.

    Args:
        error: From the validation of a document or of settings.
    """
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    message = plain_message(problem["msg"])
    return f"{place}: {message}" if place else message


def summarise_exception(error: BaseException) -> str:
    """Returns type and message of an exception in one line; validation errors by the first problem.

    Examples:
        >>> summarise_exception(ValueError("no such layer"))
        'ValueError: no such layer'
    """
    from pydantic import ValidationError

    text = str(error)
    if isinstance(error, ValidationError):
        text = f"{error.title}: {describe_validation(error)}"
    summary = type(error).__name__
    if text:
        summary += f": {text}"
    return " ".join(summary.split())


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an allocation failed, on the CPU or on a GPU."""
    # By name and text, so that torch is not imported: `torch.OutOfMemoryError` is for GPUs; on a
    # CPU torch raises a RuntimeError that names its allocator.
    raised_by_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(
        error
    )
    return raised_by_torch or isinstance(error, MemoryError)
