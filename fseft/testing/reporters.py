"""What every reporter must keep, and its checks as parameters of a test."""

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
"""Of a run, whoever watches it."""
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
    """The checks of a reporter, to be called one by one.

    ```python
    @pytest.mark.parametrize("check", reporter_checks("my-reporter"))
    def test_my_reporter(check):
        check()
    ```

    Args:
        name: Its name in the registry.
        xfail: Check -> why the reporter cannot keep it; it must then fail.

    Raises:
        ValueError: There is no check of a name in `xfail`.
    """
    return parameters(name, CHECKS, Watching(name), xfail)


@dataclass(frozen=True)
class Watching:
    """A reporter, and the runs that it is told of."""

    name: str

    def reporter(self, folder: Path) -> object:
        """A new one."""
        made: object = registry().create("reporter", self.name, folder)
        return made

    def run(self, folder: Path, first: int, last: int, *, outcome: str = "finished") -> None:
        """Tell a new reporter of a run as `fseft adapt` does, from the first epoch to the last; it must not fail.

        Args:
            folder: Of the run.
            first: Its number.
            last: Its number.
            outcome: How the run ends; a run that was killed does not.
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

    def left(self, *parts: tuple[int, int, str]) -> dict[str, bytes]:
        """The files in a folder after these parts of a run, each with its first epoch, its last, and its outcome."""
        with TemporaryDirectory() as parent:
            folder = Path(parent) / "run"
            for first, last, outcome in parts:
                self.run(folder, first, last, outcome=outcome)
            return {
                str(path.relative_to(folder)): path.read_bytes()
                for path in folder.rglob("*")
                if path.is_file()
            }


def waits_for_the_run_to_start(watching: Watching) -> None:
    """Made for a folder that is not there yet, it leaves nothing behind: the run may still be refused."""
    with TemporaryDirectory() as parent:
        watching.reporter(Path(parent) / "run")
        assert list(Path(parent).iterdir()) == []


def leaves_the_files_of_the_run_alone(watching: Watching) -> None:
    """Adapter, checkpoint and documents are the run's own."""
    left = watching.left((1, 4, "finished"))
    assert {name: left.get(name) for name in FILES} == {name: name.encode() for name in FILES}


def hears_of_a_run_that_failed(watching: Watching) -> None:
    """A run may end before its first epoch is done, with the line of an error."""
    watching.left((1, 0, "the loss is nan at step 0. Lower the rate."))


def goes_on_after_a_kill(watching: Watching) -> None:
    """Some epochs are done again; in the end all is as after a run that was never killed."""
    whole = watching.left((1, 4, "finished"))
    assert watching.left((1, 3, "killed"), (2, 4, "finished")) == whole
    assert watching.left((1, 0, "killed"), (1, 4, "finished")) == whole


def may_come_late(watching: Watching) -> None:
    """A run that goes on may not have had this reporter before."""
    watching.left((3, 4, "finished"))


def starts_anew_with_a_new_run(watching: Watching) -> None:
    """In the folder of an earlier run it leaves what it would leave in an empty one."""
    assert watching.left((1, 4, "finished"), (1, 2, "finished")) == watching.left(
        (1, 2, "finished")
    )


def loads_no_torch_before_it_is_chosen(watching: Watching) -> None:
    """The plugin that offers the reporter is listed without torch."""
    assert_listed_without_torch("reporter", watching.name)


CHECKS: tuple[Callable[[Watching], None], ...] = (
    waits_for_the_run_to_start,
    leaves_the_files_of_the_run_alone,
    hears_of_a_run_that_failed,
    goes_on_after_a_kill,
    may_come_late,
    starts_anew_with_a_new_run,
    loads_no_torch_before_it_is_chosen,
)
