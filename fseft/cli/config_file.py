"""The options `--config` and `--save-config`: values of a command's options in a TOML file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fseft.cli.options import OUTPUT, with_options
from fseft.errors import FseftError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

COMMANDS = ("plan", "preprocess", "pretrain", "adapt", "predict", "evaluate", "benchmark")
"""Commands that read and write configuration files."""

_NOT_IN_FILES = {"config", "save_config", "as_json", "quiet", "verbose", "overwrite", "help"}


def _read_option(context: typer.Context, value: Path | None) -> Path | None:
    """Makes the values of the file the defaults of the options that are parsed afterwards."""
    if value is not None and not context.resilient_parsing:
        context.default_map = read_defaults(value, context)
    return value


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=_read_option,
        is_eager=True,
        help="Options from a TOML file (docs/config.md), or of a run from its run.json; those of "
        "the command line take precedence.",
        rich_help_panel=OUTPUT,
    ),
]
SaveConfig = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write the options of this command to a TOML file for --config.",
        rich_help_panel=OUTPUT,
    ),
]


def read_defaults(path: Path, context: typer.Context) -> dict[str, Any]:
    """Reads the values of a command's options.

    Args:
        path: TOML file, or the `run.json` of a run. Values in a table of the command's name take
            precedence over those outside of tables, which hold for all commands with such an
            option.
        context: The command.

    Returns:
        Name of the parameter -> value.

    Raises:
        FseftError: The file cannot be read, or has an unknown option or a value of another type.
    """
    from fseft import api

    command, options = str(context.command.name), _options(context.command)
    if path.suffix == ".json":
        values = _options_of_run(path, command)
    else:
        values, common = api.read_config(path, command, commands=COMMANDS)
        known = {key for item in _configurable(context) for key in _options(item)}
        _check_options(common, known, "no command has the option", path)
        values = {**{key: common[key] for key in common.keys() & options}, **values}
    _check_options(values, options, f"`fseft {command}` has no option", path)
    return {
        str(options[key].name): _value_of(options[key], value, key, path)
        for key, value in values.items()
    }


def _configurable(context: typer.Context) -> list[Any]:
    commands = getattr(context.find_root().command, "commands", {})
    return [commands[name] for name in COMMANDS if name in commands]


def _check_options(keys: Iterable[str], options: Iterable[str], cause: str, path: Path) -> None:
    for key in keys:
        if key not in options:
            hint = did_you_mean(key, sorted(options))
            raise FseftError(f"{cause} {key!r}", file=path, hint=hint)


def _value_of(parameter: Any, value: Any, key: str, path: Path) -> Any:
    """Returns a value as the parser expects it, a list for options that are repeated."""
    is_flag, takes_list = getattr(parameter, "is_flag", False), _takes_list(parameter)
    problem = ""
    if is_flag and not isinstance(value, bool):
        problem = "is not true or false"
    elif isinstance(value, bool) and not is_flag:
        problem = "is true or false, which only flags are"
    elif isinstance(value, list) and not takes_list:
        problem = "is a list"
    if problem:
        hint = "`--help` describes the options."
        raise FseftError(f"the value of {key!r} {problem}", file=path, hint=hint)
    if is_flag:
        return value
    texts = [str(item) for item in (value if isinstance(value, list) else [value])]
    return texts if takes_list else texts[0]


def _options_of_run(path: Path, command: str) -> dict[str, Any]:
    from fseft import api

    if command != "adapt":
        hint = "Pass it to `fseft adapt`, or pass a TOML file."
        raise FseftError(f"repeats a run, not `fseft {command}`", file=path, hint=hint)
    return api.options_of_run(path)


def _takes_list(parameter: Any) -> bool:
    return bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1


def _options(command: Any) -> dict[str, Any]:
    """Returns the spelling of each option or argument, without dashes -> its parameter."""
    spellings = {}
    for parameter in command.params:
        if parameter.name in _NOT_IN_FILES:
            continue
        longest = max(parameter.opts, key=len)
        spellings[longest.lstrip("-").replace("_", "-")] = parameter
    return spellings


def _save_options(context: typer.Context, path: Path) -> None:
    """Writes the options of a command that were set, and the defaults of others as comments."""
    from fseft import api

    values: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for spelling, parameter in _options(context.command).items():
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        is_set = source is not None and source.name != "DEFAULT"
        (values if is_set else defaults)[spelling] = context.params.get(name)
    api.write_config(path, str(context.command.name), values, defaults)


def with_config_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options `--config` and `--save-config` to a command."""

    def save(values: Mapping[str, Any]) -> None:
        if values["save_config"] is not None:
            _save_options(values["context"], values["save_config"])

    options = {
        "context": (typer.Context, inspect.Parameter.empty),
        "config": (Config, None),
        "save_config": (SaveConfig, None),
    }
    return with_options(command, options, save)
