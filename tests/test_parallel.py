"""Mapping over cases keeps the order, tries every case, and tells which one failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fseft.errors import FseftError
from fseft.parallel import default_workers, each_case, executor, map_cases

ITEMS = {"c": 3, "a": 1, "b": 2}


def square(value):
    return value * value


def odd_only(value):
    if value % 2 == 0:
        raise FseftError(f"{value} is even", hint="Give odd numbers.", file=f"{value}.txt")
    return value


def never(_):
    raise FseftError("bad")


def exhausted(_):
    raise MemoryError


def killed(_):
    os._exit(9)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_keep_the_order_of_the_items(workers):
    names = []
    assert list(map_cases(square, ITEMS, workers=workers, done=names.append).items()) == [
        ("c", 9),
        ("a", 1),
        ("b", 4),
    ]
    assert sorted(names) == ["a", "b", "c"]


def test_a_failed_case_is_named_after_all_others_were_tried():
    names = []
    with pytest.raises(FseftError) as caught:
        map_cases(odd_only, ITEMS, done=names.append)
    assert str(caught.value) == "case b, 2.txt: 2 is even. Give odd numbers."
    assert sorted(names) == ["a", "b", "c"]


def test_further_failures_are_counted():
    with pytest.raises(FseftError, match=r"case c: bad \(2 more cases failed: a, b\)"):
        map_cases(never, ITEMS)


def test_want_of_memory_is_told_with_its_remedy():
    with pytest.raises(FseftError, match="fewer --workers"):
        map_cases(exhausted, ITEMS)


def test_a_killed_worker_is_no_traceback():
    with pytest.raises(FseftError, match="the worker was killed"):
        map_cases(killed, ITEMS, workers=2)


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


def wait_in_workers():
    with executor(2) as pool:
        for _ in range(2):
            pool.submit(tell_and_wait)


def tell_and_wait():
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(100)


def slowly(path):
    time.sleep(0.2)
    path.touch()


def test_what_has_not_begun_when_the_work_is_broken_off_does_not_begin(tmp_path):
    def broken_off(_case):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_cases(
            slowly, {str(n): tmp_path / str(n) for n in range(50)}, workers=2, done=broken_off
        )
    assert len(list(tmp_path.iterdir())) < 10


def test_no_items_need_no_workers():
    assert map_cases(square, {}, workers=4) == {}
    assert default_workers() >= 1


def failing(_):
    raise ValueError("no luck")


def test_an_unexpected_exception_is_raised_as_it_is():
    with pytest.raises(ValueError, match="no luck"):
        map_cases(failing, {"c": 3})


def test_with_one_worker_each_case_ends_before_the_next_begins():
    begun = []

    def items():
        for case, value in ITEMS.items():
            begun.append(case)
            yield case, value

    seen = [(case, list(begun)) for case, _ in each_case(square, items())]
    assert seen == [("c", ["c"]), ("a", ["c", "a"]), ("b", ["c", "a", "b"])]
