"""The program `fseft`: its commands, its global options, and how errors are told."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_group

from fseft import __version__
from fseft.cli import console
from fseft.errors import FseftError, is_out_of_memory, summarise_exception
from fseft.registry import PLUGIN_EXCEPTIONS, registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fseft.registry import Registry

WORK, LOOK = "InferenceConfig", "Look up"
COMMANDS = (  # in the order of the help: name, module in fseft.cli, panel
    ("demo", "demo", WORK),
    ("phantom", "phantom", WORK),
    ("plan", "plan", WORK),
    ("preprocess", "preprocess", WORK),
    ("pretrain", "pretrain", WORK),
    ("adapt", "adapt", WORK),
    ("predict", "predict", WORK),
    ("evaluate", "evaluate", WORK),
    ("benchmark", "benchmark", WORK),
    ("plugin", "new_plugin", WORK),
    ("methods", "listing", LOOK),
    ("models", "models", LOOK),
    ("plugins", "listing", LOOK),
    ("show", "listing", LOOK),
)
PLUGIN_SWITCHES = ("--plugin", "-p")
INTERRUPTED = 130  # 128 + SIGINT, as shells report it

app = typer.Typer(
    name="fseft",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"fseft {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def fseft(
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", "-p", metavar="no:NAME", help="Leave out a plugin; repeatable."),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has acted
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
        command = getattr(importlib.import_module(f"fseft.cli.{module}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(command)


_add_commands()


def _disabled(arguments: Sequence[str]) -> Iterator[str]:
    """The names after `-p no:`; read before the parser, which must know all commands to begin."""
    left = iter(arguments)
    for argument in left:
        if not argument.startswith("-"):
            return
        switch = (
            next(left, "")
            if argument in PLUGIN_SWITCHES
            else argument.removeprefix("--plugin=").removeprefix("-p")
        )
        if switch.startswith("no:"):
            yield switch.removeprefix("no:")


def add_plugin_commands(app: typer.Typer, registry: Registry) -> None:
    """Let every plugin add its commands: all of them, or none where one is broken or takes the name of another."""
    for entry in registry.plugins:
        function = getattr(entry.module, "fseft_commands", None)
        if function is None or entry.status != "active":
            continue
        own = typer.Typer()
        try:
            function(own)
            taken = get_group(own).commands.keys() & get_group(app).commands.keys()
        except PLUGIN_EXCEPTIONS as error:  # whatever a plugin does, the program comes up
            entry.fail(f"fseft_commands: {summarise_exception(error)}")
            continue
        if taken:
            entry.fail(f"fseft_commands: there is a command {min(taken)!r} already")
            continue
        app.registered_commands += own.registered_commands
        app.registered_groups += own.registered_groups


def _load_plugins(arguments: Sequence[str]) -> None:
    """Let plugins add their commands; a problem is one line, and `fseft plugins` tells the rest."""
    known = filter(None, os.environ.get("FSEFT_DISABLE_PLUGINS", "").split(","))
    # By the environment, so that worker processes leave out the same ones.
    os.environ["FSEFT_DISABLE_PLUGINS"] = ",".join([*known, *_disabled(arguments)])
    plugins = registry()
    add_plugin_commands(app, plugins)
    troubled = [entry.name for entry in plugins.plugins if entry.problems]
    if troubled and "plugins" not in arguments:
        console.note(f"plugins with problems: {', '.join(troubled)}; see `fseft plugins`")


def main() -> None:
    """Run the program; bad input ends in one line and exit status 2."""
    console.configure_logging()
    with console.one_line_warnings():
        try:
            _load_plugins(sys.argv[1:])
            ended = app(prog_name="fseft", standalone_mode=False)
            status = ended if type(ended) is int else 0  # a command of a plugin may give anything
        except typer.TyperException as error:
            _fail_usage(error)
            status = 2
        except FseftError as error:
            console.fail(str(error))
            status = 2
        except Exception as error:
            status = _fail_unforeseen(error)
        except (KeyboardInterrupt, typer.Abort):
            status = INTERRUPTED
    if status == INTERRUPTED:
        console.note("interrupted; what was finished or saved is kept; run again to go on")
    sys.exit(status)


def _fail_unforeseen(error: Exception) -> int:
    """Report an unexpected exception, with its traceback unless the user can fix it; return the exit status."""
    if isinstance(error, OSError) and error.filename:
        console.fail(
            f"{error.filename}: cannot be used ({error.strerror or error}). Check its rights."
        )
    elif is_out_of_memory(error):
        console.fail("the memory is too small for this. Free some, or use fewer --workers.")
    else:
        console.fail(summarise_exception(error))
        traceback.print_exception(error)
        return 1
    return 2


def _fail_usage(error: typer.TyperException) -> None:
    """A wrong call in one line; a bare `fseft` shows the help."""
    context: typer.Context | None = getattr(error, "ctx", None)
    message = error.format_message()
    if not message:  # no argument at all: the help has been shown
        return
    where = f" See {context.command_path} --help." if context else ""
    console.fail(f"{message.rstrip('.')}{'' if message.endswith('?') else '.'}{where}")
