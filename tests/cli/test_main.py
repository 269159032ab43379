"""The program reports errors, starts without heavy imports, and runs the commands of plugins."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fseft.workspace import Workspace
from tests.sample_data import write_dataset, write_model

ROOT = str(Path(__file__).parents[2])
HEAVY = ("torch", "monai", "numpy", "SimpleITK", "scipy", "matplotlib")

PLUGIN = """
import os
import re
import signal
import time
import warnings

from fseft.errors import FseftError
from fseft.plugin import MethodSpec, hookimpl

@hookimpl
def fseft_methods():
    return [
        MethodSpec(name="polite", factory="not_there:Method", summary="says [please]"),
        MethodSpec(name="failing", factory="fseft_polite:Failing", access="black-box"),
    ]

class Failing:
    def __init__(self, config):
        self.config = config

    def select(self, architecture, network):
        return []

    def apply(self, architecture, network, *, generator):
        return choose_layers(network)

def choose_layers(network):
    return find_layer(network, "no.such.layer")

def find_layer(network, name):
    return dict(network.named_modules())[name]

def fail_in_worker(case):
    raise KeyError(case)

def wait_in_worker(case):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece, as two workers write at once
    time.sleep(60)

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

    @app.command("wait")
    def wait():
        print("waiting", flush=True)
        time.sleep(60)

    @app.command("fail")
    def fail():
        path = "/a/very/long/path" + "/long" * 30
        raise FseftError(f"the value [3] of {path} is odd", hint="Take 2.")

    @app.command("map")
    def map_(function: str):
        from fseft.parallel import map_cases
        functions = {"fail": fail_in_worker, "wait": wait_in_worker}
        map_cases(functions[function], {"a": "a1", "b": "b2"}, workers=2)

    @app.command("break")
    def break_(kind: str):
        if kind == "open":
            open("not-there.txt")
        if kind == "disk":
            raise OSError(28, "No space left on device")
        errors = {"io": OSError("no luck"), "key": KeyError("no\\nluck"), "memory": MemoryError()}
        raise errors[kind]

    @app.command("give")
    def give():
        return "a text"
"""


@pytest.fixture
def environment(tmp_path):
    """The environment of a process that has a working plugin and a broken one."""
    for name, code in (("polite", PLUGIN), ("rude", "raise RuntimeError('no')")):
        (tmp_path / f"fseft_{name}.py").write_text(code)
        info = tmp_path / f"fseft_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fseft-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fseft]\n{name} = fseft_{name}\n")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FSEFT_")}
    path = os.pathsep.join([str(tmp_path), ROOT])
    return {**inherited, "PYTHONPATH": path, "COLUMNS": "120"}


@pytest.fixture
def start(environment, tmp_path):
    """Start the program in a new process."""

    def start(*arguments, **more):
        return subprocess.Popen(
            [sys.executable, "-m", "fseft", *arguments],
            env=environment | more,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def fseft(start):
    """Run the program in a new process to its end."""

    def run(*arguments, **more):
        with start(*arguments, **more) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run


def test_help_lists_the_commands_of_the_core_and_of_plugins(fseft):
    result = fseft("--help")
    assert result.returncode == 0
    for name in ("evaluate", "methods", "models", "plugins", "show", "hello"):
        assert f" {name} " in result.stdout
    note = "see `fseft plugins`, with --debug for tracebacks"
    assert result.stderr == f"plugins with problems: rude; {note}\n"


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("methods",),
        pytest.param(("evaluate", "--help"), marks=pytest.mark.full),
        pytest.param(("plugin", "--help"), marks=pytest.mark.full),
        pytest.param(("plugins",), marks=pytest.mark.full),
        pytest.param(("show", "reader", "nnunet"), marks=pytest.mark.full),
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


def test_bad_input_ends_in_one_line_and_status_2(fseft):
    result = fseft("show", "method", "polit")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == ("error: unknown method 'polit'. Did you mean polite?")


def test_an_error_line_is_neither_broken_nor_read_as_markup(fseft):
    result = fseft("fail", FSEFT_DISABLE_PLUGINS="rude")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "the value [3] of /a/very/long/path" in line
    assert line.endswith("is odd. Take 2.")


@pytest.mark.parametrize(("kind", "message"), [("key", r"'no\nluck'"), ("io", "no luck")])
def test_an_unexpected_exception_is_a_line_with_its_traceback_and_status_1(fseft, kind, message):
    result = fseft("-p", "no:rude", "break", kind)
    assert result.returncode == 1
    line, *frames = result.stderr.splitlines()
    error = "KeyError" if kind == "key" else "OSError"
    assert line == f"error: {error}: {message} (in the package fseft-polite 1.0)"
    assert frames[0] == "Traceback (most recent call last):"
    assert "fseft_polite.py" in frames[-2] + frames[-3]


def test_a_method_that_raises_shows_every_frame(fseft, tmp_path):
    write_dataset(tmp_path / "blobs")
    write_model(Workspace(tmp_path / "work"))
    command = "adapt blobs --model tiny --method failing --k 1 --workspace work --device cpu"
    result = fseft("-p", "no:rude", *command.split())
    assert result.returncode == 1
    origin = "(in the package fseft-polite 1.0)"
    line = f"error: KeyError: 'no.such.layer' {origin}"
    assert f"{line}\nTraceback (most recent call last)" in result.stderr
    frames = re.findall(r"fseft_polite\.py\", line \d+, in (\w+)", result.stderr)
    assert frames == ["apply", "choose_layers", "find_layer"]


@pytest.mark.full
def test_an_exception_in_a_worker_shows_the_frames_of_the_worker(fseft):
    result = fseft("-p", "no:rude", "map", "fail")
    assert result.returncode == 1
    assert re.search(r"fseft_polite\.py\", line \d+, in fail_in_worker", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("--debug", "fail"), {}), (("fail", "--debug"), {}), (("fail",), {"FSEFT_DEBUG": "1"})],
)
def test_debug_adds_the_traceback_to_an_error_of_the_user(fseft, arguments, variables):
    result = fseft("-p", "no:rude", *arguments, **variables)
    assert result.returncode == 2
    line, *frames = result.stderr.splitlines()
    assert line.endswith("is odd. Take 2.")
    assert frames[0] == "Traceback (most recent call last):"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("open", "not-there.txt: No such file or directory. Check the path and its permissions."),
        ("disk", "the disk is full. Free some space and run again."),
        (
            "memory",
            (
                "the memory is too small (MemoryError). Free some, or use a machine with more memory."
            ),
        ),
    ],
)
def test_an_error_of_the_system_that_the_user_can_fix_is_one_line(fseft, kind, line):
    result = fseft("-p", "no:rude", "break", kind)
    assert (result.returncode, result.stderr) == (2, f"error: {line}\n")


def test_the_traceback_of_a_broken_plugin_is_shown_in_debug_mode(fseft):
    shown = fseft("plugins", "--debug").stderr
    assert re.search(r"Traceback .*\n(.*\n)*.*fseft_rude\.py.*\n(.*\n)*RuntimeError: no", shown)
    assert "Traceback" not in fseft("plugins").stderr


def test_the_return_value_of_a_plugin_s_command_is_ignored(fseft):
    result = fseft("-p", "no:rude", "give")
    assert (result.returncode, result.stderr) == (0, "")


RESUME = "finished results and checkpoints are kept. Run the same command again to resume.\n"


def test_ctrl_c_ends_in_one_line_and_status_130(fseft):
    result = fseft("stop", FSEFT_DISABLE_PLUGINS="rude")
    assert (result.returncode, result.stderr) == (130, f"interrupted; {RESUME}")


def test_sigterm_ends_in_one_line_and_status_143(start):
    with start("-p", "no:rude", "wait") as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        assert (process.wait(300), process.stderr.read()) == (143, f"terminated; {RESUME}")


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_workers_end_with_a_signal_to_the_main_process(start, number, status):
    with start("-p", "no:rude", "map", "wait") as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.send_signal(number)
        assert process.wait(300) == status
        assert "Traceback" not in process.stderr.read()
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_warning_is_one_line(fseft):
    result = fseft("-p", "no:rude", "hello")
    assert (result.returncode, result.stdout) == (0, "hello\n")
    assert result.stderr == "warning: first line second line\n"


def test_a_closed_pipe_leaves_no_traceback():
    command = [sys.executable, "-m", "fseft", "plugins", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
        assert process.wait(300) == 1


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
    assert rows["polite"]["provides"] == {"method": ["polite", "failing"]}
    table = fseft("plugins").stdout
    assert "fseft-polite 1.0" in table
    assert "RuntimeError: no" in table


def test_methods_are_listed_with_their_package(fseft):
    table = fseft("methods").stdout
    assert "says [please]" in table
    assert "fseft-polite 1.0" in table
    assert "polite" in [entry["name"] for entry in json.loads(fseft("methods", "--json").stdout)]


def test_an_architecture_shows_what_can_be_set(fseft):
    shown = fseft("show", "architecture", "resunet").stdout
    assert "width of each level" in shown
    assert "instance | batch" in shown
    assert "use_v2" in fseft("show", "architecture", "swinunetr").stdout
    schema = json.loads(fseft("show", "architecture", "resunet", "--json").stdout)["config_schema"]
    assert schema["properties"]["channels"]["default"] == [16, 32, 64, 128, 128]
    assert schema["properties"]["norm"]["description"] == "normalisation layers"


def test_a_new_plugin_is_a_package_in_a_new_folder(fseft, tmp_path):
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
