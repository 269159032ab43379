"""The program `fseft`: its commands, its global options, and how errors are reported."""

from __future__ import annotations

import errno
import importlib
import logging
import os
import re
import signal
import sys
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_group

from fseft.cli import config_file, console
from fseft.cli.help import HelpCommand, HelpGroup
from fseft.cli.options import with_verbosity
from fseft.cli.reference import describe_application, reference_lines
from fseft.errors import FseftError, is_out_of_memory, plain_message, summarise_exception
from fseft.registration import PLUGIN_EXCEPTIONS
from fseft.registry import registry
from fseft.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fseft.registry import Registry

RUN, INSPECT = "Commands", "Inspect"
COMMANDS = (
    ("demo", "demo", RUN),
    ("start", "start", RUN),
    ("phantom", "phantom", RUN),
    ("plan", "plan", RUN),
    ("preprocess", "preprocess", RUN),
    ("pretrain", "pretrain", RUN),
    ("adapt", "adapt", RUN),
    ("predict", "predict", RUN),
    ("evaluate", "evaluate", RUN),
    ("benchmark", "benchmark", RUN),
    ("report", "report", RUN),
    ("export", "export", RUN),
    ("adapters", "adapters", RUN),
    ("clean", "clean", RUN),
    ("plugin", "new_plugin", RUN),
    ("doctor", "doctor", INSPECT),
    ("methods", "listing", INSPECT),
    ("models", "models", INSPECT),
    ("plugins", "listing", INSPECT),
    ("show", "listing", INSPECT),
)
"""Name, module in `fseft.cli` and panel of the help, in its order."""
PLUGIN_SWITCHES = ("--plugin", "-p")
DEBUG, HELP_ALL = "--debug", "--help-all"

UNEXPECTED, USER_ERROR = 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses: an exception that nobody expected, bad input, and those of shells for signals."""

app = typer.Typer(
    name="fseft",
    cls=HelpGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `fseft demo`, or with `fseft adapt DATASET`. `fseft --help-all` prints the "
    "help of all commands. Documentation: docs/start.md.",
)


class Terminated(BaseException):
    """SIGTERM, which job schedulers send before they kill a job."""


def _show_version(requested: bool) -> None:
    if requested:
        console.out.print(f"fseft {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def fseft(
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", "-p", metavar="no:NAME", help="Disable a plugin; repeatable."),
    ] = None,
    debug: Annotated[  # noqa: ARG001 - read by `main`, anywhere in the command line
        bool, typer.Option(DEBUG, help="Show the traceback of every error; also FSEFT_DEBUG=1.")
    ] = False,
    help_all: Annotated[  # noqa: ARG001 - handled by `_run`, before commands are parsed
        bool, typer.Option(HELP_ALL, help="Show the help of all commands; with --json as JSON.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Adapt foundation models for volumetric medical segmentation to a few labelled volumes."""
    for switch in plugin or ():
        if not switch.startswith("no:"):
            raise typer.BadParameter(f"--plugin {switch} is not of the form no:NAME")


def _add_commands() -> None:
    for name, module, panel in COMMANDS:
        imported = importlib.import_module(f"fseft.cli.{module}")
        command = getattr(imported, name)
        if isinstance(command, typer.Typer):
            for info in [*command.registered_commands, command.registered_callback]:
                if info is not None and info.callback is not None:
                    info.callback = with_verbosity(info.callback)
            for info in command.registered_commands:
                info.cls = HelpCommand
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            settings = getattr(imported, "CONTEXT_SETTINGS", None)
            register = app.command(
                name, cls=HelpCommand, rich_help_panel=panel, context_settings=settings
            )
            if name in config_file.COMMANDS:
                command = config_file.with_config_file(command)
            register(with_verbosity(command))


_add_commands()


def _disabled_plugins(arguments: Sequence[str]) -> Iterator[str]:
    """Yields the names after `-p no:`, before the parser runs: plugins add commands to it."""
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("-"):
            return  # the command, whose options may be called alike
        if argument in PLUGIN_SWITCHES:
            switch = next(remaining, "")
        else:
            switch = argument.removeprefix("--plugin=").removeprefix("-p")
        if switch.startswith("no:"):
            yield switch.removeprefix("no:")


def add_plugin_commands(app: typer.Typer, registry: Registry) -> None:
    """Adds the commands of all plugins.

    If a plugin fails, or one of its commands exists already, none of its commands is added, and
    the problem is recorded in its row.

    Args:
        app: The application to extend.
        registry: The plugins.
    """
    for plugin in registry.plugins:
        hook = getattr(plugin.module, "fseft_commands", None)
        if hook is None or plugin.status != "active":
            continue
        commands = typer.Typer()
        try:
            hook(commands)
            existing = get_group(commands).commands.keys() & get_group(app).commands.keys()
        except PLUGIN_EXCEPTIONS as error:
            plugin.fail(f"fseft_commands: {summarise_exception(error)}", error=error)
            continue
        if existing:
            plugin.fail(f"fseft_commands: the command {min(existing)!r} exists already")
            continue
        app.registered_commands += commands.registered_commands
        app.registered_groups += commands.registered_groups


def _load_plugins(arguments: Sequence[str]) -> None:
    """Adds the commands of plugins; `fseft plugins` shows the problems that are mentioned here."""
    disabled = filter(None, os.environ.get("FSEFT_DISABLE_PLUGINS", "").split(","))
    # In the environment, so that worker processes disable the same plugins.
    names = ",".join([*disabled, *_disabled_plugins(arguments)])
    os.environ["FSEFT_DISABLE_PLUGINS"] = names
    plugins = registry()
    add_plugin_commands(app, plugins)
    failing = [plugin.name for plugin in plugins.plugins if plugin.problems]
    if failing and "plugins" not in arguments:
        note = "see `fseft plugins`, with --debug for tracebacks"
        console.note(f"plugins with problems: {', '.join(failing)}; {note}")


def main() -> None:
    """Runs the program and exit with its status.

    The status is 0 on success, 1 after an unexpected exception (an `error:` line with the traceback
    below), 2 after an error that the user can fix (the line only), 3 after a training that
    diverged, 130 after Ctrl-C and 143 after SIGTERM. `--debug`, anywhere in the command line, or
    `FSEFT_DEBUG=1` adds the traceback to every error.
    """
    debug = os.environ.get("FSEFT_DEBUG", "0") not in ("", "0")
    arguments = [argument for argument in sys.argv[1:] if argument != DEBUG]
    debug = debug or len(arguments) < len(sys.argv[1:])
    level = logging.DEBUG if debug else logging.INFO
    console.configure_logging(level, lambda message: _with_flags(message, arguments))
    with console.one_line_warnings(), _raise_on_sigterm():
        status = _run(arguments, debug=debug)
    sys.exit(status)


@contextmanager
def _raise_on_sigterm() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM, so that temporary files are removed and workers end."""

    def terminate(_signum: int, _frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield
        return
    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(arguments: Sequence[str], *, debug: bool) -> int:
    """Runs a command, reports its error, and returns the exit status."""
    try:
        _load_plugins(arguments)
        _refuse_empty_values(arguments)
        if arguments and arguments[0] == HELP_ALL:
            _show_reference(as_json="--json" in arguments)
            return 0
        result = app(arguments, prog_name="fseft", standalone_mode=False)
        status = result if type(result) is int else 0  # commands of plugins may return anything
    except typer.TyperException as error:
        status = _report_usage(error, arguments)
    except Exception as error:
        status = _report_exception(error, arguments, debug=debug)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Terminated:
        status = TERMINATED
    if status in (INTERRUPTED, TERMINATED):
        signalled = "interrupted" if status == INTERRUPTED else "terminated"
        kept = "finished results and checkpoints are kept"
        console.note(f"{signalled}; {kept}. Run the same command again to resume.")
        _show_json_error({"message": signalled, "exit_code": status}, arguments)
    return status


def _refuse_empty_values(arguments: Sequence[str]) -> None:
    """Refuses empty arguments, as of an unset shell variable, which would select the default.

    Raises:
        FseftError: An argument or the value of an option is empty.
    """
    for previous, argument in zip(("", *arguments), arguments, strict=False):
        option = argument.removesuffix("=") if argument.startswith("--") else previous
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            subject = f"the value of {option}" if option.startswith("-") else "an argument"
            hint = "Pass a value, or leave the option out; is a variable of the shell unset?"
            raise FseftError(f"{subject} is empty", hint=hint)


def _show_reference(*, as_json: bool) -> None:
    description = describe_application(app)
    if as_json:
        console.show_json(description)
    else:
        console.show_lines(reference_lines(description))


def _report_exception(error: Exception, arguments: Sequence[str], *, debug: bool) -> int:
    """Print an error line, with the traceback if nobody expected the error or in debug mode."""
    message = _user_message(error)
    status = USER_ERROR if message else UNEXPECTED
    line = _with_flags(message, arguments) or f"{summarise_exception(error)}{_origin(error)}"
    console.fail(line)
    if debug or not message:
        traceback.print_exception(error)
    details: dict[str, object] = {"message": line, "exit_code": status}
    if isinstance(error, FseftError):
        details |= {"cause": error.cause, "hint": error.hint, "case": error.case}
        details["file"] = None if error.file is None else str(error.file)
    _show_json_error(details, arguments)
    return status


def _show_json_error(details: Mapping[str, object], arguments: Sequence[str]) -> None:
    """Prints an error as JSON too, for a program that reads the result as JSON."""
    if "--json" in arguments:
        console.show_json({"error": details})


def _origin(error: BaseException) -> str:
    """Names the plugin whose code raised an exception; empty for any other code."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        if package := registry().package_of(frame.f_globals.get("__name__", "")):
            return f" (in the package {package})"
    return ""


def _user_message(error: Exception) -> str:
    """Returns the message of an error that the user can fix; empty for any other exception."""
    if isinstance(error, FseftError):
        return str(error)
    if is_out_of_memory(error):
        reason = summarise_exception(error)
        return f"the memory is too small ({reason}). Free some, or use a machine with more memory."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full. Free some space and run again."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}. Check the path and its permissions."
    return ""


def _with_flags(message: str, arguments: Sequence[str]) -> str:
    """Replaces names of parameters by the options of the command, as in `allow_pickle`.

    Args:
        message: A message of the library, with parameters in backticks.
        arguments: The command line.
    """
    if "`" not in message:
        return message
    command = get_group(app)
    for argument in arguments:
        command = getattr(command, "commands", {}).get(argument, command)
    flags = {}
    for parameter in command.params:
        flags[str(parameter.name)] = next(
            (option for option in parameter.opts if option.startswith("--")), parameter.name
        )
    return re.sub(r"`(\w+)`", lambda match: f"`{flags.get(match[1], match[1])}`", message)


def _report_usage(error: typer.TyperException, arguments: Sequence[str]) -> int:
    """Print an error of the command line; without arguments, the help has been shown."""
    message = plain_message(error.format_message())
    if not message:
        return USER_ERROR
    context: typer.Context | None = getattr(error, "ctx", None)
    stop = "" if message.endswith("?") else "."
    hint = f" See {context.command_path} --help." if context else ""
    line = f"{message.rstrip('.')}{stop}{_comma_hint(message, arguments)}{hint}"
    console.fail(line)
    _show_json_error({"message": line, "exit_code": USER_ERROR}, arguments)
    return USER_ERROR


def _comma_hint(message: str, arguments: Sequence[str]) -> str:
    """Suggests commas where an option is followed by two values, as in `--cases a b`."""
    match = re.search(r"unexpected extra argument.* \((\S+)[^()]*\)", message)
    if match is None or match[1] not in arguments[2:]:
        return ""
    index = arguments.index(match[1], 2)
    option, value = arguments[index - 2 : index]
    if not option.startswith("--") or value.startswith("-"):
        return ""
    return f" Separate values by commas: {option} {value},{match[1]}."
