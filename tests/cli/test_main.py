"""The program tells errors in one line, starts light, and knows the commands of plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fseft import __version__
from fseft.pretraining.configure import SETTINGS

ROOT = str(Path(__file__).parents[2])
HEAVY = ("torch", "monai", "numpy", "SimpleITK", "scipy", "matplotlib")

PLUGIN = """
import warnings
from fseft.errors import FseftError
from fseft.plugin import MethodSpec, hookimpl

@hookimpl
def fseft_methods():
    return [MethodSpec(name="polite", factory="not_there:Method", summary="says [please]")]

@hookimpl
def fseft_commands(app):
    @app.command("hello")
    def hello():
        "Say hello."
        warnings.warn("first line\\nsecond line")
        print("hello")

    @app.command("stop")
    def stop():
        raise KeyboardInterrupt

    @app.command("fail")
    def fail():
        raise FseftError("the value [3] of /a/very/long/path" + "/long" * 30 + " is odd", hint="Take 2.")

    @app.command("break")
    def break_(how: str):
        if how == "open":
            open("not-there.txt")
        raise {"disk": OSError("no luck"), "key": KeyError("no\\nluck"), "memory": MemoryError()}[how]

    @app.command("give")
    def give():
        return "a text"
"""


@pytest.fixture
def fseft(tmp_path):
    """Run the program in a process of its own, with a plugin that is good and one that is broken."""
    for name, code in (("polite", PLUGIN), ("rude", "raise RuntimeError('no')")):
        (tmp_path / f"fseft_{name}.py").write_text(code)
        info = tmp_path / f"fseft_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fseft-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fseft]\n{name} = fseft_{name}\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FSEFT_")}
    environment = {**kept, "PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT]), "COLUMNS": "120"}

    def run(*arguments, **more):
        command = [sys.executable, "-m", "fseft", *arguments]
        return subprocess.run(
            command,
            env=environment | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_help_lists_the_commands_of_the_core_and_of_plugins(fseft):
    result = fseft("--help")
    assert result.returncode == 0
    for name in ("evaluate", "methods", "models", "plugins", "show", "hello"):
        assert f" {name} " in result.stdout
    assert result.stderr == "plugins with problems: rude; see `fseft plugins`\n"


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("evaluate", "--help"),
        ("plugin", "--help"),
        ("methods",),
        ("plugins",),
        ("show", "reader", "nnunet"),
    ],
)
def test_looking_around_loads_nothing_heavy(fseft, command):
    result = fseft(*command, PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 0, result.stderr
    loaded = {
        line.rpartition("|")[2].strip()
        for line in result.stderr.splitlines()
        if "import time" in line
    }
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_version_is_told(fseft):
    assert fseft("--version").stdout == f"fseft {__version__}\n"


def test_bad_input_ends_in_one_line_and_status_2(fseft):
    result = fseft("show", "method", "polit")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == (
        "error: unknown method 'polit'. Did you mean polite? "
        "The package fseft-rude 1.0 is broken (RuntimeError: no)."
    )


def test_an_error_line_is_neither_broken_nor_read_as_markup(fseft):
    result = fseft("fail", FSEFT_DISABLE_PLUGINS="rude")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "the value [3] of /a/very/long/path" in line
    assert line.endswith("is odd. Take 2.")


@pytest.mark.parametrize(
    ("how", "told"), [("key", r"KeyError: 'no\nluck'"), ("disk", "OSError: no luck")]
)
def test_an_unexpected_exception_is_a_line_with_a_traceback_below(fseft, how, told):
    result = fseft("-p", "no:rude", "break", how)
    assert result.returncode == 1
    line, *frames = result.stderr.splitlines()
    assert line == f"error: {told}"
    assert frames[0] == "Traceback (most recent call last):"
    assert "fseft_polite.py" in "".join(frames)


def test_a_file_that_a_command_of_a_plugin_lacks_is_named(fseft):
    result = fseft("-p", "no:rude", "break", "open")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith("error: not-there.txt: cannot be used (No such file")


def test_want_of_memory_is_told_in_a_line_that_blames_nobody(fseft):
    result = fseft("-p", "no:rude", "break", "memory")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith("error: the memory is too small for this.")


def test_what_a_command_of_a_plugin_returns_is_no_error(fseft):
    result = fseft("-p", "no:rude", "give")
    assert (result.returncode, result.stderr) == (0, "")


def test_an_interrupt_ends_in_one_line_and_status_130(fseft):
    result = fseft("stop", FSEFT_DISABLE_PLUGINS="rude")
    assert result.returncode == 130
    assert result.stderr == "interrupted; what was finished or saved is kept; run again to go on\n"


def test_a_warning_is_one_line(fseft):
    result = fseft("-p", "no:rude", "hello")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    assert result.stderr == "warning: first line second line\n"


def test_a_reader_that_goes_away_is_no_traceback():
    command = [sys.executable, "-m", "fseft", "plugins", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(60) == 1


def test_a_plugin_can_be_left_out_for_one_call(fseft):
    result = fseft("-p", "no:polite", "-p", "no:fseft-rude", "plugins", "--json")
    status = {entry["name"]: entry["status"] for entry in json.loads(result.stdout)}
    assert (status["builtin"], status["polite"], status["rude"]) == (
        "active",
        "disabled",
        "disabled",
    )
    assert fseft("-p", "no:polite", "hello").returncode == 2
    assert "no:NAME" in fseft("-p", "polite", "methods").stderr


def test_a_broken_plugin_is_a_row_with_its_problem(fseft):
    rows = {entry["name"]: entry for entry in json.loads(fseft("plugins", "--json").stdout)}
    assert rows["rude"]["status"] == "broken"
    assert rows["rude"]["problems"] == ["RuntimeError: no"]
    assert rows["polite"]["provides"] == {"method": ["polite"]}
    table = fseft("plugins").stdout
    assert "fseft-polite 1.0" in table
    assert "RuntimeError: no" in table


def test_methods_are_listed_with_their_package(fseft):
    table = fseft("methods").stdout
    assert "says [please]" in table
    assert "fseft-polite 1.0" in table
    assert "polite" in [entry["name"] for entry in json.loads(fseft("methods", "--json").stdout)]


def test_a_method_shows_its_configuration(fseft):
    shown = fseft("show", "method", "lora").stdout
    assert "rank" in shown
    assert "int" in shown
    assert "uniform_learning_rate: True" in shown  # of the preset
    schema = json.loads(fseft("show", "method", "lora", "--json").stdout)["config_schema"]
    assert schema["properties"]["rank"]["type"] == "integer"


def test_an_architecture_shows_what_can_be_set(fseft):
    shown = fseft("show", "architecture", "resunet").stdout
    assert "width of each level" in shown
    assert "instance | batch" in shown
    assert "use_v2" in fseft("show", "architecture", "swinunetr").stdout
    schema = json.loads(fseft("show", "architecture", "resunet", "--json").stdout)["config_schema"]
    assert schema["properties"]["channels"]["default"] == [16, 32, 64, 128, 128]
    assert schema["properties"]["norm"]["description"] == "normalisation layers"


def test_all_settings_of_a_pre_training_are_in_its_help(fseft):
    help_text = fseft("pretrain", "--help").stdout
    assert all(setting in help_text for setting in SETTINGS)


def test_a_new_plugin_is_a_package_beside_what_there_is(fseft, tmp_path):
    assert (
        fseft("plugin", "new", "mine", "--kind", "reader").stdout
        == "the package fseft-mine: fseft-mine\n"
    )
    assert (tmp_path / "fseft-mine" / "pyproject.toml").is_file()
    refused = fseft("plugin", "new", "mine", "--kind", "reader", FSEFT_DISABLE_PLUGINS="rude")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: fseft-mine: is not empty. Choose a new folder.\n",
    )
    assert fseft("plugin", "new", "mine", "--kind", "metric").returncode == 2


def test_models_of_the_workspace_are_listed(fseft, tmp_path):
    folder = tmp_path / "work" / "models" / "mine"
    folder.mkdir(parents=True)
    card = {
        "name": "mine",
        "architecture": "resunet",
        "classes": ["liver", "spleen"],
        "licence": "CC-BY-4.0",
    }
    (folder / "model.json").write_text(json.dumps(card))
    table = fseft("models", "--workspace", "work").stdout
    row = next(line for line in table.splitlines() if "mine" in line)
    assert row.split() == ["mine", "resunet", "2", "CC-BY-4.0", "-"]
    shown = json.loads(fseft("show", "model", "mine", "--workspace", "work", "--json").stdout)
    assert shown["classes"] == ["liver", "spleen"]
    assert "1:liver, 2:spleen" in fseft("show", "model", "mine", "--workspace", "work").stdout
    listed = json.loads(fseft("models", "--workspace", "work", "--json").stdout)
    assert "mine" in [entry["name"] for entry in listed]
