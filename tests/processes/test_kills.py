"""A command that is killed at any file event can be repeated, and then nothing shows of the kill."""

from __future__ import annotations

import random
import shutil

import pytest

from .conftest import COMMANDS, contents, differences, is_refusal

pytestmark = pytest.mark.full

KILLS = 15
"""Of each command, at random file events."""


@pytest.fixture(scope="module")
def saved(forks, tmp_path_factory):
    """For each command: the folder before it, its number of file events, and what it leaves."""
    states = {}
    for name, command in COMMANDS.items():
        before = tmp_path_factory.mktemp("before") / "work"
        shutil.copytree(forks.folder, before)
        outcome = forks.run(command)
        assert outcome["status"] == 0, outcome["err"]
        states[name] = before, int(outcome["events"]), contents(forks.folder)
    return states


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_can_be_repeated(name, saved, forks):
    before, events, expected = saved[name]
    rng = random.Random(name)
    assert not any(".fseft-tmp-" in path for path in expected)
    for _ in range(KILLS):
        kill = {"kill_at": rng.randint(1, events), "half": rng.random() < 0.5}
        forks.restore(before)
        assert forks.run(COMMANDS[name], **kill)["status"] == -9, kill
        again = forks.run(COMMANDS[name])
        assert again["status"] == 0 or is_refusal(again), (kill, again["err"])
        assert differences(contents(forks.folder), expected) == set(), kill
