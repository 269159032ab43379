"""The only error that a user should meet."""

from __future__ import annotations

import re
import sys
from traceback import walk_tb
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_LISTED = 20  # names that a hint holds


class FseftError(Exception):
    """Bad input, told in one line: case, file, cause and remedy. The command line exits with status 2.

    Args:
        cause: What is wrong, with the offending value.
        hint: What to do about it.
        case: The case identifier, where one case is to blame.
        file: The file, where one file is to blame.
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
        """Errors cross process borders: keyword arguments must survive pickling."""
        return _rebuild, (self.cause, self.hint, self.case, self.file)

    def located(self, *, case: str | None = None, file: Path | str | None = None) -> FseftError:
        """The same error, told where it happened; what is known already stays."""
        return FseftError(
            self.cause, hint=self.hint, case=self.case or case, file=self.file or file
        )

    def __str__(self) -> str:
        where = ", ".join(
            part
            for part in (f"case {self.case}" if self.case else "", str(self.file or ""))
            if part
        )
        line = f"{where}: {self.cause}" if where else self.cause
        return " ".join(f"{line}{'' if line.endswith('.') else '.'} {self.hint}".split())


class IncompatibleError(FseftError):
    """A method and a model, or the structures, do not go together; others may."""


class PluginError(FseftError):
    """The code of a plugin failed, whatever the input is."""


class PluginContractError(TypeError):
    """A function of a plugin was asked and gave what it must not; `Registry.blamed` tells whose it is."""


def _rebuild(cause: str, hint: str, case: str | None, file: Path | str | None) -> FseftError:
    return FseftError(cause, hint=hint, case=case, file=file)


def pluralise(count: int, what: str) -> str:
    """`1 scan`, `2 scans`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def did_you_mean(name: str, known: list[str] | tuple[str, ...]) -> str:
    """The hint for an unknown name: the nearest known names, or all of them."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    if not known:
        return "None is known."
    more = len(known) - _LISTED
    first = ", ".join(sorted(known)[:_LISTED])
    return f"Known: {first}{f' and {more} more' if more > 0 else ''}."


def summarise_exception(error: BaseException) -> str:
    """The kind of an error that is not ours, and what it says."""
    from pydantic import ValidationError

    text = str(error)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        text = f"{'.'.join(map(str, (error.title, *first['loc'])))}: {first['msg']}"
    if isinstance(error, PluginContractError):
        return " ".join(text.split())
    return " ".join(f"{type(error).__name__}: {text}".split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was asked for and not there; torch's error goes by its name, and for a CPU by what it says."""
    named = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return named or isinstance(error, MemoryError)


def fault_of(package: str, error: BaseException) -> str:
    """What to tell of an error that a plugin's package raised, and where; empty where it is not to blame."""
    place = passed_through(error, package)
    own = place or isinstance(error, PluginContractError) or _called_wrongly(error, package)
    if not own or isinstance(error, FseftError) or is_out_of_memory(error):
        return ""
    return "; ".join(filter(None, (summarise_exception(error), place)))


def _called_wrongly(error: BaseException, package: str) -> bool:
    """Whether a function of a package's own was called with other arguments than it takes."""
    found = isinstance(error, TypeError) and re.match(
        r"(\w+)[\w.]*\(\) (takes|got|missing)", str(error)
    )
    own = [
        module
        for name, module in sys.modules.items()
        if found and name.partition(".")[0] == package
    ]
    return any(
        getattr(getattr(m, found[1], None), "__module__", "").split(".")[0] == package
        for m in own
        if found
    )


def innermost(error: BaseException, packages: Collection[str]) -> str:
    """Of these packages the one whose code an error came through last; empty where it came through none."""
    tops = (
        str(frame.f_globals.get("__name__")).partition(".")[0]
        for frame, _ in walk_tb(error.__traceback__)
    )
    return next((top for top in reversed([*tops]) if top in packages), "")


def passed_through(error: BaseException, package: str) -> str:
    """The last line of a package's code that an error came through; empty where it came through none."""
    places = (
        (str(frame.f_globals.get("__name__")), line) for frame, line in walk_tb(error.__traceback__)
    )
    own = [f"{name}, line {line}" for name, line in places if name.partition(".")[0] == package]
    return own[-1] if own else ""
