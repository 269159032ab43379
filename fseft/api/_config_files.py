"""Configuration files: options of commands in TOML, and those that repeat a run."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


_FORMAT = 'Write TOML, such as: method = "lora"; `--save-config FILE` writes one.'


def read_config(
    path: Path, command: str, *, commands: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the options of a command from a TOML file.

    Args:
        path: The file.
        command: Name of the command.
        commands: Names that a table may have.

    Returns:
        The values in the table of the command, and those outside of tables, with option names as on
        the command line, without the leading dashes.

    Raises:
        FseftError: The file cannot be read, is not TOML, or has a table of another name.
    """
    from tomlkit import parse
    from tomlkit.exceptions import ParseError

    try:
        document = parse(path.read_text(encoding="utf-8-sig")).unwrap()
    except OSError as error:
        raise FseftError(error.strerror or str(error), file=path, hint="Check the path.") from error
    except (UnicodeDecodeError, ParseError) as error:
        raise FseftError(f"is not a TOML file ({error})", file=path, hint=_FORMAT) from error
    tables = {name: value for name, value in document.items() if isinstance(value, dict)}
    unknown = sorted(tables.keys() - set(commands))
    if unknown:
        cause = f"{unknown[0]!r} is not a command with a configuration file"
        raise FseftError(cause, file=path, hint=did_you_mean(unknown[0], list(commands)))
    common = {name: value for name, value in document.items() if name not in tables}
    return _dashed(tables.get(command, {})), _dashed(common)


def _dashed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with options spelt as on the command line."""
    return {key.replace("_", "-"): value for key, value in values.items()}


def write_config(
    path: Path, command: str, values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Writes the options of a command to a TOML file.

    Args:
        path: The file.
        command: Name of the command, and of the table.
        values: Option -> value.
        defaults: Option -> value, written as comments; those without a value are left out.

    Raises:
        FseftError: The folder cannot be written.
    """
    import tomlkit

    from fseft.workspace import atomic_write

    table = tomlkit.table()
    for option, value in values.items():
        table.add(option, _toml_value(value))
    for option, value in defaults.items():
        if value not in (None, "", (), []):
            table.add(tomlkit.comment(tomlkit.dumps({option: _toml_value(value)}).strip()))
    document = tomlkit.document()
    document.add(command, table)
    with atomic_write(path) as temporary:
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")


def _toml_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_toml_value(item) for item in value]
    value = getattr(value, "value", value)  # of an enumeration
    return str(value) if isinstance(value, PurePath) else value


def options_of_run(path: Path) -> dict[str, Any]:
    """Returns the options of `fseft adapt` that repeat a run, except for the dataset.

    Args:
        path: The `run.json` of a run; its plan and training cases are read from the same folder.

    Raises:
        FseftError: A file cannot be read or is damaged, or the adapter that the run started from
            has changed.
    """
    from fseft.adaptation import repetition

    repetition.check_repeatable(path)
    return repetition.options_of_run(path)
