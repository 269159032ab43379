"""Eight processes of a command share a workspace, also where all have process id 1, as in containers."""

from __future__ import annotations

import os
import shutil

import pytest

from .conftest import COMMANDS, contents, differences, is_refusal

pytestmark = pytest.mark.full

PROCESSES = 8
ROUNDS = int(os.environ.get("FSEFT_ROUNDS", "1"))
"""Number of repetitions of each command."""


@pytest.fixture(scope="module")
def before(forks, tmp_path_factory):
    """The folder before each command, and what one process leaves."""
    states = {}
    for name, command in COMMANDS.items():
        saved = tmp_path_factory.mktemp("before") / "work"
        shutil.copytree(forks.folder, saved)
        assert forks.run(command)["status"] == 0
        states[name] = saved, contents(forks.folder)
    return states


@pytest.mark.parametrize("pid_one", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_processes_of_a_command_do_not_disturb_each_other(name, pid_one, before, forks):
    """Each succeeds, or says in one line that another one is at work; the result is that of one."""
    saved, expected = before[name]
    for _ in range(ROUNDS):
        forks.restore(saved)
        call = {"arguments": COMMANDS[name].split(), "pid_one": pid_one}
        outcomes = forks.call(*[call] * PROCESSES)
        statuses = [outcome["status"] for outcome in outcomes]
        refused = [outcome for outcome in outcomes if outcome["status"] != 0]
        assert all(map(is_refusal, refused)), [outcome["err"] for outcome in refused]
        assert 0 in statuses
        assert differences(contents(forks.folder), expected) == set()


@pytest.mark.parametrize("pid_one", [False, True])
def test_trainings_on_more_feature_sets_than_are_kept_do_not_disturb_each_other(
    pid_one, before, forks
):
    """Each has other features, and more than five are in use at the same time."""
    saved, _ = before["adapt on features"]
    for _ in range(ROUNDS):
        forks.restore(saved)
        command = COMMANDS["adapt on features"]
        calls = [f"{command} --seed {seed}".split() for seed in range(PROCESSES)]
        outcomes = forks.call(*[{"arguments": call, "pid_one": pid_one} for call in calls])
        assert [outcome["status"] for outcome in outcomes] == [0] * PROCESSES, outcomes


def test_datasets_with_equal_names_do_not_disturb_each_other(before, forks, tmp_path):
    """Their arrays are separate: each adapter is that of a workspace for itself."""
    saved, _ = before["adapt elsewhere"]
    forks.restore(saved)
    shutil.copytree(forks.folder / "data", forks.folder / "other" / "data")
    images = sorted((forks.folder / "other" / "data" / "imagesTr").iterdir())
    labels = sorted((forks.folder / "other" / "data" / "labelsTr").iterdir())
    for files in (images, labels):  # each case has the content of another one
        kept = [file.read_bytes() for file in files]
        for file, content in zip(files, kept[1:] + kept[:1], strict=True):
            file.write_bytes(content)
    shutil.copytree(forks.folder, tmp_path / "apart")
    commands = {
        "one": COMMANDS["adapt elsewhere"].replace("elsewhere", "one"),
        "two": COMMANDS["adapt elsewhere"]
        .replace("elsewhere", "two")
        .replace("data", "other/data", 1),
    }
    apart = {}
    for name, command in commands.items():
        forks.restore(tmp_path / "apart")
        assert forks.run(command)["status"] == 0
        apart[name] = contents(forks.folder / name)
    for _ in range(ROUNDS):
        forks.restore(tmp_path / "apart")
        calls = [{"arguments": command.split()} for command in commands.values()]
        assert [outcome["status"] for outcome in forks.call(*calls)] == [0, 0]
        for name in commands:
            assert contents(forks.folder / name) == apart[name]
