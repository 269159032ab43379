"""The checks of a reporter, as parameters of a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fseft.experiment.reporters import Reporters
from fseft.registry import registry
from fseft.schemas import Run
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet

FILES = ("adapter.safetensors", "checkpoint.pt", "run.json", "support.json")
"""Files of a run, which reporters must not change."""
RUN = Run(
    dataset="livers",
    model="phantom-tiny",
    method="lora",
    config={"rank": 4},
    recipe={"epochs": 4, "minutes": None},
    labels={"liver": 1},
    decoder="frozen",
    k=2,
    seed=0,
    trained_parameters=1000,
)


def reporter_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of a reporter, as parameters of a test that calls each.

    ```python
    @pytest.mark.parametrize("check", reporter_checks("my-reporter"))
    def test_my_reporter(check):
        check()
    ```

    Args:
        name: Name of the reporter in the registry.
        xfail: Reason for each check that must fail.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    return parameters(name, CHECKS, SimulatedRuns(name), xfail)


@dataclass(frozen=True)
class SimulatedRuns:
    """Runs that are reported to a reporter, without training."""

    name: str

    def reporter(self, folder: Path) -> object:
        """Returns a new instance for a run folder."""
        reporter: object = registry().create("reporter", self.name, folder)
        return reporter

    def run(self, folder: Path, first: int, last: int, *, outcome: str = "finished") -> None:
        """Reports a run to a new reporter as `fseft adapt` does; the reporter must not fail.

        Args:
            folder: Folder of the run.
            first: First epoch.
            last: Last epoch.
            outcome: "finished", "killed" or the message of an error. A killed run reports no end.
        """
        reporters = Reporters({self.name: self.reporter(folder)})
        folder.mkdir(exist_ok=True)
        for name in FILES:
            (folder / name).write_text(name, encoding="utf-8")
        failures = reporters.notify("fseft_run_start", run=RUN, epoch=first)
        for epoch in range(first, last + 1):
            metrics = {"loss": 1 / epoch, "learning_rate": 1e-3, "seconds": 2.0 * epoch}
            failures |= reporters.notify("fseft_epoch_end", run=RUN, epoch=epoch, metrics=metrics)
            path = folder / "checkpoint.pt"
            failures |= reporters.notify("fseft_checkpoint_saved", run=RUN, path=path)
        ended = RUN.model_copy(update={"outcome": "finished"}) if outcome == "finished" else RUN
        if outcome == "finished":
            path = folder / "adapter.safetensors"
            failures |= reporters.notify("fseft_checkpoint_saved", run=ended, path=path)
        if outcome != "killed":
            failures |= reporters.notify("fseft_run_end", run=ended, outcome=outcome)
        assert failures == {}

    def files_after(self, *parts: tuple[int, int, str]) -> dict[str, bytes]:
        """Returns the files after parts of a run, each (first epoch, last epoch, outcome)."""
        with TemporaryDirectory() as parent:
            folder = Path(parent) / "run"
            for first, last, outcome in parts:
                self.run(folder, first, last, outcome=outcome)
            files = [path for path in folder.rglob("*") if path.is_file()]
            return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def waits_for_the_run_to_start(runs: SimulatedRuns) -> None:
    """Its creation writes no file, because the run may still be refused."""
    with TemporaryDirectory() as parent:
        runs.reporter(Path(parent) / "run")
        assert list(Path(parent).iterdir()) == []


def leaves_the_files_of_the_run_alone(runs: SimulatedRuns) -> None:
    """It does not change adapter, checkpoint and documents of the run."""
    files = runs.files_after((1, 4, "finished"))
    for name in FILES:
        assert files.get(name) == name.encode()


def handles_a_failed_run(runs: SimulatedRuns) -> None:
    """A run may fail before the end of its first epoch."""
    runs.files_after((1, 0, "the loss is nan at step 0. Lower the rate."))


def resumes_after_a_kill(runs: SimulatedRuns) -> None:
    """Though some epochs are repeated, the files equal those of an uninterrupted run."""
    uninterrupted = runs.files_after((1, 4, "finished"))
    killed_late = runs.files_after((1, 3, "killed"), (2, 4, "finished"))
    killed_early = runs.files_after((1, 0, "killed"), (1, 4, "finished"))
    assert killed_late == uninterrupted
    assert killed_early == uninterrupted


def joins_a_resumed_run(runs: SimulatedRuns) -> None:
    """A run may be resumed with a reporter that it did not have at first."""
    runs.files_after((3, 4, "finished"))


def starts_over_with_a_new_run(runs: SimulatedRuns) -> None:
    """A new run in the same folder leads to the same files as in an empty folder."""
    expected = runs.files_after((1, 2, "finished"))
    assert runs.files_after((1, 4, "finished"), (1, 2, "finished")) == expected


def loads_no_torch_before_it_is_chosen(runs: SimulatedRuns) -> None:
    """Listing the plugin of the reporter does not import torch."""
    assert_listed_without_torch("reporter", runs.name)


CHECKS: tuple[Callable[[SimulatedRuns], None], ...] = (
    waits_for_the_run_to_start,
    leaves_the_files_of_the_run_alone,
    handles_a_failed_run,
    resumes_after_a_kill,
    joins_a_resumed_run,
    starts_over_with_a_new_run,
    loads_no_torch_before_it_is_chosen,
)
