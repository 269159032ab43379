"""Functions are mapped over cases: in order, to the end, and with the name of a case that fails."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from fseft.errors import FseftError, IncompatibleError
from fseft.parallel import default_workers, each_case, executor, map_cases, map_in_threads

ITEMS = {"c": 3, "a": 1, "b": 2}


def square(value):
    return value * value


def odd_only(value):
    if value % 2 == 0:
        raise IncompatibleError(f"{value} is even", hint="Give odd numbers.", file=f"{value}.txt")
    return value


def never(_):
    raise FseftError("bad")


def exhausted(_):
    raise MemoryError


def killed(_):
    os._exit(9)


def failing(_):
    raise ValueError("no luck")


def warning(value):
    logging.getLogger("fseft.test").warning("value %d", value)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_the_order_of_the_items(workers):
    names = []
    results = map_cases(square, ITEMS, workers=workers, progress=names.append)
    assert list(results.items()) == [("c", 9), ("a", 1), ("b", 4)]
    assert sorted(names) == ["a", "b", "c"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_case_is_named_after_all_others_were_tried(workers):
    names = []
    with pytest.raises(IncompatibleError) as caught:
        map_cases(odd_only, ITEMS, workers=workers, progress=names.append)
    assert str(caught.value) == "case b, 2.txt: 2 is even. Give odd numbers."
    assert sorted(names) == ["a", "b", "c"]


def test_further_failures_are_counted():
    with pytest.raises(FseftError, match=r"case c: bad \(2 more cases failed: a, b\)"):
        map_cases(never, ITEMS)


@pytest.mark.parametrize(
    ("workers", "remedy"),
    [(1, "Free some, or use a machine with more"), (2, "Use fewer `workers`")],
)
def test_running_out_of_memory_names_the_remedy_for_the_number_of_workers(workers, remedy):
    with pytest.raises(FseftError, match=rf"the memory is too small \(MemoryError.*{remedy}"):
        map_cases(exhausted, ITEMS, workers=workers)


def test_a_killed_worker_is_an_error_of_the_user():
    with pytest.raises(FseftError, match="the worker was killed"):
        map_cases(killed, ITEMS, workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_exception_is_raised_with_the_frames_of_the_worker(workers):
    with pytest.raises(ValueError, match="no luck") as caught:
        map_cases(failing, {"c": 3, "d": 4}, workers=workers)
    assert "in failing" in "".join(traceback.format_exception(caught.value))


def test_exceptions_of_cases_can_be_collected():
    for _, outcome in each_case(failing, ITEMS.items(), catch=Exception):
        assert isinstance(outcome, ValueError)


@pytest.mark.parametrize("workers", [1, 2])
def test_log_records_of_workers_reach_the_main_process(workers, caplog):
    map_cases(warning, ITEMS, workers=workers)
    assert sorted(record.getMessage() for record in caplog.records) == [
        "value 1",
        "value 2",
        "value 3",
    ]


def test_threads_do_the_same():
    assert map_in_threads(square, ITEMS) == {"c": 9, "a": 1, "b": 4}


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_workers_end_with_a_process_that_is_killed():
    program = "import test_parallel; test_parallel.wait_in_workers()"
    folder = Path(__file__).parent
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_in_workers_for(_):
    time.sleep(60)


def wait_in_workers():
    with executor(2) as pool:
        for _ in range(2):
            pool.submit(print_and_wait)


def print_and_wait():
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(100)


def wait_with_a_file(path):
    try:
        path.touch()
        time.sleep(0.2 if path.name == "0" else 100)
    finally:
        path.rename(path.with_suffix(".removed"))


def test_an_interrupt_ends_running_cases_and_starts_no_others(tmp_path):
    def interrupt(_case):
        raise KeyboardInterrupt

    paths = {str(number): tmp_path / str(number) for number in range(50)}
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        map_cases(wait_with_a_file, paths, workers=2, progress=interrupt)
    assert time.monotonic() - start < 60
    assert 1 <= len(list(tmp_path.iterdir())) < 10
    assert {path.suffix for path in tmp_path.iterdir()} == {".removed"}


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay_s", [0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
def test_a_signal_while_workers_start_prints_no_traceback_of_theirs(number, delay_s):
    """A terminal and a scheduler signal the whole process group."""
    program = (
        "import tests.test_parallel as t, fseft.parallel as p\n"
        "try:\n"
        "    print('starting', flush=True)\n"
        "    p.map_cases(t.wait_in_workers_for, {'a': 1, 'b': 2}, workers=2)\n"
        "except (KeyboardInterrupt, SystemExit):\n"
        "    print('ended')\n"
    )
    handler = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
    with subprocess.Popen(
        [sys.executable, "-c", handler + program],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout.readline() == "starting\n"
        time.sleep(delay_s)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert out == "ended\n"
    assert "Traceback" not in err


def test_no_items_need_no_workers():
    assert map_cases(square, {}, workers=4) == {}
    assert default_workers() >= 1


def test_with_one_worker_each_case_ends_before_the_next_begins():
    drawn = []

    def items():
        for case, value in ITEMS.items():
            drawn.append(case)
            yield case, value

    seen = [(case, list(drawn)) for case, _ in each_case(square, items())]
    assert seen == [("c", ["c"]), ("a", ["c", "a"]), ("b", ["c", "a", "b"])]
