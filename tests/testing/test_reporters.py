"""The checks of reporters find what they are there to find; every reporter of the core passes
them.
"""

from __future__ import annotations

import pytest

from fseft.builtin.reporters.jsonl import JsonlReporter
from fseft.plugin import hookimpl
from fseft.registry import registry
from fseft.testing import reporter_checks, reporters
from fseft.testing.reporters import SimulatedRuns


@pytest.mark.parametrize(
    "check",
    [
        check
        for name in registry().names("reporter")
        if name != "tensorboard"  # see tests/builtin/test_tensorboard.py
        for check in reporter_checks(name)
    ],
)
def test_a_reporter_keeps_the_contract(check):
    check()


class Writes:
    """A file with one line per epoch."""

    def __init__(self, folder):
        self.folder, self.path = folder, folder / "losses.txt"

    @hookimpl
    def fseft_epoch_end(self, epoch, metrics):
        self.write(f"{epoch} {metrics['loss']}\n")

    def write(self, text):
        with self.path.open("a") as file:
            file.write(text)


class WritesAtOnce(JsonlReporter):
    def __init__(self, folder):
        super().__init__(folder)
        folder.mkdir(exist_ok=True)


class CleansUp(JsonlReporter):
    @hookimpl
    def fseft_run_end(self):
        (self.path.parent / "checkpoint.pt").unlink()


class NeedsEpochs(Writes):
    @hookimpl
    def fseft_run_end(self):
        self.path.read_text()


class NeedsItsFile(Writes):
    @hookimpl
    def fseft_run_start(self, epoch):
        lines = self.path.read_text().splitlines(keepends=True) if epoch > 1 else []
        self.path.write_text("".join(lines[: epoch - 1]))


def watched(flawed):
    class OfTheFlawed(SimulatedRuns):
        def reporter(self, folder):
            return flawed(folder)

    return OfTheFlawed("jsonl")


@pytest.mark.parametrize("check", reporters.CHECKS)
def test_a_reporter_that_is_right_passes(check):
    check(watched(JsonlReporter))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (WritesAtOnce, reporters.waits_for_the_run_to_start),
        (CleansUp, reporters.leaves_the_files_of_the_run_alone),
        (NeedsEpochs, reporters.handles_a_failed_run),
        (Writes, reporters.resumes_after_a_kill),
        (NeedsItsFile, reporters.joins_a_resumed_run),
        (Writes, reporters.starts_over_with_a_new_run),
    ],
)
def test_a_flaw_is_found(flawed, check):
    with pytest.raises(AssertionError):
        check(watched(flawed))
