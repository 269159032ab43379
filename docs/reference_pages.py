"""MkDocs hook: generate the command-line reference from the Typer application."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

INTRODUCTION = """# Command line

Generated from `fseft --help`. Every command takes `-h`; all paths default to the current folder.

"""


def command_reference() -> str:
    """Returns the help of all commands as Markdown, one section per command."""
    os.environ["FSEFT_NO_PLUGINS"] = "1"  # commands of installed plugins are not part of the core

    import typer
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from fseft.cli.main import app

    command = get_command(app)
    help_text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="fseft")
    body = re.sub(r"\A# `fseft`\n+", "", help_text)
    return INTRODUCTION + re.sub(r"\[(default: [^\]]*|required)\]", r"(\1)", body)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds `cli.md` to the pages of the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "cli.md", content=command_reference()))
    return files
