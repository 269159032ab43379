"""The curves of a run in TensorBoard, also of a resumed one."""

from __future__ import annotations

import pytest

from fseft.builtin.reporters import tensorboard as reporter
from fseft.errors import FseftError
from fseft.testing import reporter_checks
from fseft.testing.reporters import SimulatedRuns

TIMES = "event files contain times; TensorBoard discards what is repeated"


def curves(folder):
    """Tag -> (epoch, value) as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / reporter.FOLDER)).Reload()
    return {
        tag: [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_without_the_package_the_run_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(reporter, "find_spec", lambda _name: None)
    with pytest.raises(FseftError, match=r"pip install 'fseft\[tensorboard\]'"):
        reporter.TensorBoardReporter(tmp_path)


@pytest.mark.parametrize(
    "check",
    reporter_checks(
        "tensorboard", xfail={"resumes_after_a_kill": TIMES, "starts_over_with_a_new_run": TIMES}
    ),
)
def test_the_contract(check):
    pytest.importorskip("tensorboard")
    check()


def test_a_resumed_run_has_each_epoch_once(tmp_path):
    pytest.importorskip("tensorboard")
    runs = SimulatedRuns("tensorboard")
    runs.run(tmp_path, 1, 3, outcome="killed")
    runs.run(tmp_path, 2, 4)
    shown = curves(tmp_path)
    assert sorted(shown) == ["learning_rate", "loss", "seconds"]
    assert shown["loss"] == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]


def test_a_new_run_replaces_the_curves(tmp_path):
    pytest.importorskip("tensorboard")
    runs = SimulatedRuns("tensorboard")
    runs.run(tmp_path, 1, 4)
    runs.run(tmp_path, 1, 2)
    assert [epoch for epoch, _ in curves(tmp_path)["loss"]] == [1, 2]
