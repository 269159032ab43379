"""Names that act on a terminal, Markdown or HTML: every command shows them as plain text."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from fseft.cli import console
from fseft.escaping import escape_json, escape_markdown, printable
from fseft.reporting.page import Column, Page, Section, Table, render_page
from tests.sample_data import write_dataset

HOSTILE = "[/]x[bold]<script>\x1b[31m\u202eabc|`*_"
OTHERS = ("[/x]", "\u202egnp", "a" * 200, "a\x07b", "a\nb", "肝臓")
ACTIVE = ("\x1b[31m", "\u202e", "\x07")


def shown_plainly(ended):
    assert "Traceback" not in ended.err
    assert ended.status == 0, ended.err
    for character in ACTIVE:
        assert character not in ended.out + ended.err


@pytest.mark.parametrize(
    "name", [HOSTILE, *(pytest.param(name, marks=pytest.mark.full) for name in OTHERS)]
)
def test_a_whole_chain_with_hostile_names_ends_well(fseft, tmp_path, workspace, name):
    file_name = name.replace("/", "-")
    folder = write_dataset(
        tmp_path / f"set{file_name}", cases=(f"one{file_name}",), labels={name: 1, "tumour": 7}
    )
    root, run, output = (
        str(workspace.root),
        tmp_path / f"run{file_name}",
        tmp_path / f"o{file_name}",
    )
    at = ("--workspace", root)
    shown_plainly(fseft("plan", str(folder), "--model", "tiny", *at))
    shown_plainly(fseft("preprocess", str(folder), "--model", "tiny", *at))
    settings = ("--set", "epochs=1", "--set", "crops_per_step=1")
    adapted = ("adapt", str(folder), "--model", "tiny", "--method", "linear-probe", "--k", "1")
    shown_plainly(fseft(*adapted, *settings, "-o", str(run), *at))
    predicted = ("predict", str(folder / "imagesTr"), "-o", str(output), "--adapter", str(run))
    shown_plainly(fseft(*predicted, *at))
    ended = fseft("evaluate", str(output), str(folder / "labelsTr"), "--with-support")
    shown_plainly(ended)
    ended = fseft("evaluate", str(output), str(folder / "labelsTr"), "--with-support", "--json")
    shown_plainly(ended)
    assert name in json.loads(ended.out)["classes"]


@pytest.mark.full
@pytest.mark.parametrize("name", [HOSTILE, *OTHERS])
def test_a_benchmark_with_hostile_names_ends_well(fseft, tmp_path, workspace, name):
    file_name = name.replace("/", "-")
    cases = (f"1{file_name}", f"2{file_name}")
    folder = write_dataset(tmp_path / f"set{file_name}", cases=cases, labels={name: 1, "tumour": 7})
    output = tmp_path / f"o{file_name}"
    compared = ("benchmark", str(folder), "--model", "tiny", "--method", "linear-probe", "--k", "1")
    short = ("--test", "1", "--set", "epochs=1", "--set", "crops_per_step=1")
    ended = fseft(*compared, *short, "-o", str(output), "--workspace", str(workspace.root))
    shown_plainly(ended)
    table = (output / "benchmark.md").read_text()
    for character in ACTIVE:
        assert character not in table
    assert escape_markdown(name) in table


def test_a_terminal_receives_no_character_that_acts_on_it(monkeypatch, capsys):
    monkeypatch.setattr(console, "out", Console(force_terminal=False))
    monkeypatch.setattr(console, "err", Console(stderr=True))
    console.show_lines([HOSTILE])
    console.show_table((HOSTILE, "b"), [(HOSTILE, "2")], right=(HOSTILE,))
    console.show_json({HOSTILE: "\udc80"})
    console.warn(HOSTILE)
    captured = capsys.readouterr()
    for character in (*ACTIVE, "\udc80"):
        assert character not in captured.out + captured.err
    assert "[/]x[bold]<script>" in captured.out
    assert "[/]x[bold]<script>" in captured.err


@pytest.mark.parametrize("name", [HOSTILE, "\udc80", "a\u2028b", "\x9b"])
def test_escaped_json_is_the_same_data(name):
    text = escape_json(json.dumps({name: [name]}, ensure_ascii=False))
    assert json.loads(text) == {name: [name]}
    text.encode()


def test_markdown_and_html_show_names_as_they_are():
    assert escape_markdown(HOSTILE).startswith(r"\[/\]x\[bold\]\<script\>")
    assert "\n" not in escape_markdown("a\nb")
    table = Table(HOSTILE, (Column(HOSTILE),), [(HOSTILE,)])
    page = render_page(Page(HOSTILE, sections=(Section(HOSTILE, HOSTILE, tables=(table,)),)))
    assert "<script>" not in page
    for character in ACTIVE:
        assert character not in page


def test_letters_of_all_scripts_stay_as_they_are():
    for name in ("肝臓", "Ärzte", "עברית", "печень"):
        assert printable(name) == name
