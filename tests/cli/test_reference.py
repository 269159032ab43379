"""Every command describes itself to people and to programs, and can be quiet."""

from __future__ import annotations

import json

import pytest

from fseft.cli.main import app
from fseft.cli.reference import describe_application


def leaves(description):
    commands = description.get("commands", ())
    return [leaf for command in commands for leaf in leaves(command)] or [description]


COMMANDS = {command["name"]: command for command in leaves(describe_application(app))}


def flags(command):
    return {flag for parameter in command["parameters"] for flag in parameter["flags"]}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_quiet_or_verbose(name):
    assert {"--quiet", "-q", "--verbose", "-v"} <= flags(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example(name):
    help_text = COMMANDS[name]["help"]
    assert "xample" in help_text
    assert f"{name} " in help_text.partition("xample")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json(name):
    assert name == "fseft plugin new" or "--json" in flags(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_has_a_help_text(name):
    parameters = COMMANDS[name]["parameters"]
    assert [parameter["name"] for parameter in parameters if not parameter["help"]] == []


def test_the_help_of_all_commands_is_text_or_json(fseft):
    text = fseft("--help-all")
    assert text.status == 0
    assert all(f"{name}\n" in text.out for name in COMMANDS)
    assert json.loads(fseft("--help-all", "--json").out)["name"] == "fseft"


def test_quiet_hides_warnings_and_notes_but_no_result(fseft, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    loud, quiet = fseft("methods"), fseft("methods", "-q")
    assert quiet.out == loud.out
    assert quiet.err == ""
