"""Every command describes itself to people and to programs, and can be quiet."""

from __future__ import annotations

import json
import re

import pytest

from fseft.cli.main import app
from fseft.cli.options import OUTPUT, PANELS
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
def test_the_help_of_every_command_has_two_examples(name):
    examples = COMMANDS[name]["help"].partition("For example:")[2].split("\n\n")[1:]
    assert len(examples) >= 2
    assert all(example.strip("` ").startswith(name) for example in examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_paragraph_of_the_help_is_wrapped_by_the_terminal(name):
    assert [part for part in COMMANDS[name]["help"].split("\n\n") if "\n" in part] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_without_types_of_python(name, fseft, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = fseft(*name.split()[1:], "--help").out
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"<[a-z\[\]| ]+>|x>=|list\[|\bPath\b", text) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_grouped_in_the_same_order_for_all_commands(name, fseft):
    text = fseft(*name.split()[1:], "--help").out
    titles = re.findall(r"─ ([A-Z][a-z ]+) ─", text)
    panels = [title for title in titles if title in PANELS]
    assert panels == sorted(panels, key=PANELS.index)
    assert panels[-1] == OUTPUT


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


@pytest.mark.parametrize("arguments", ["methods", "models", "plugins", "show method lora"])
def test_no_name_is_broken_within_a_table_of_80_columns(arguments, fseft, monkeypatch):
    wide, narrow = [], []
    for columns, words in (("500", wide), ("80", narrow)):
        monkeypatch.setenv("COLUMNS", columns)
        words += fseft(*arguments.split()).out.split()
    assert {word for word in narrow if "─" not in word} <= set(wide)


def test_the_methods_are_listed_by_what_they_are_recommended_for(fseft):
    lines = fseft("methods").out.splitlines()
    first, second = (number for number, line in enumerate(lines) if "access" in line.split())
    recommended, others = lines[first:second], lines[second:]
    assert any(line.split()[:3] == ["lora", "new", "structures,"] for line in recommended)
    assert not any("affine" in line for line in recommended)
    assert any(line.split()[:1] == ["affine"] for line in others)


def test_a_method_is_shown_with_the_learning_rate_that_it_uses(fseft):
    lines = [line.split() for line in fseft("show", "method", "lora").out.splitlines()]
    assert ["learning_rate", "number", "0.01"] in [words[:3] for words in lines]


def test_settings_are_shown_without_types_of_python(fseft):
    text = fseft("show", "method", "lora").out
    assert not {"int", "float", "bool", "str", "None", "True", "False"} & set(text.split())
