"""Cases on a dask cluster: a real scheduler and two worker processes give what one process gives."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fseft import api
from fseft.errors import FseftError
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.inference.adapter_groups import open_adapters
from fseft.inference.request import PredictRequest
from fseft.inference.run import predict
from fseft.parallel import each_case, map_cases
from fseft.volume.image import read_labels
from fseft.workspace import Workspace
from tests.sample_data import adapt

pytestmark = pytest.mark.full

distributed = pytest.importorskip("distributed")
DASK = (sys.executable, "-m", "dask")
LOCAL = ("--host", "127.0.0.1", "--no-dashboard")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """The address of a scheduler, and its folder; workers may join."""
    folder = tmp_path_factory.mktemp("dask")
    told = folder / "scheduler.json"
    command = [*DASK, "scheduler", "--port", "0", *LOCAL, "--scheduler-file", str(told)]
    # dask may wait for ever where workers are killed again and again (dask/distributed issue
    # 3196): once is enough.
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    log = (folder / "log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process:
        while not told.is_file() or not told.read_text():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield json.loads(told.read_text())["address"]
        process.terminate()


@pytest.fixture(scope="module")
def cluster(scheduler, tmp_path_factory):
    """The address of the scheduler when it has two workers, which have another working folder."""
    folder = tmp_path_factory.mktemp("worker")
    command = [
        *DASK,
        "worker",
        scheduler,
        "--nworkers",
        "2",
        "--nthreads",
        "1",
        *LOCAL,
        "--local-directory",
        ".",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process,
    ):
        with distributed.Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield scheduler
        process.terminate()


def test_a_missing_scheduler_and_one_without_workers_are_reported_in_one_line(scheduler):
    with pytest.raises(FseftError, match=r"the scheduler at .* has no workers"):
        map_cases(math.sqrt, {"a": 4}, workers=scheduler)
    for address, told in (
        ("tcp://127.0.0.1:9", "no dask scheduler responds at tcp"),
        ("nonsense", "'nonsense' is not the address"),
    ):
        with pytest.raises(FseftError, match=told):
            map_cases(math.sqrt, {"a": 4}, workers=address)


def test_results_keep_the_order_of_the_items_and_errors_their_case(cluster, tmp_path):
    assert list(map_cases(math.sqrt, {"b": 4, "a": 1}, workers=cluster).items()) == [
        ("b", 2),
        ("a", 1),
    ]
    missing = {"x": tmp_path / "x.nii.gz"}
    ((case, error),) = each_case(read_labels, missing.items(), workers=cluster)
    assert (case, error.case) == ("x", "x")
    assert "x.nii.gz" in str(error)


def test_a_killed_worker_leaves_no_traceback(cluster):
    with pytest.raises(FseftError, match="the worker was killed"):
        map_cases(os._exit, {"a": 9}, workers=cluster)


def test_relative_paths_reach_the_same_files(cluster, blobs, workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(blobs.parent)
    store = Workspace(Path(os.path.relpath(tmp_path / "new")))
    _, local = api.plan(blobs, "none", device="cpu", workspace=workspace)
    _, remote = api.plan("blobs", "none", device="cpu", workers=cluster, workspace=store)
    assert remote == local
    assert len(api.preprocess("blobs", "none", workers=cluster, workspace=store).processed) == 4


def test_scans_are_segmented_and_scored_on_it_as_in_one_process(
    cluster, blobs, request_for, workspace, tmp_path
):
    adapter = adapt(request_for(), workspace).adapter
    request = PredictRequest(
        (blobs / "imagesTr",), tmp_path / "here", open_adapters((adapter,), workspace)
    )
    predict(request)
    predict(replace(request, output=tmp_path / "there", workers=cluster))
    for case in "abcd":
        here, there = (
            read_labels(tmp_path / folder / f"{case}.nii.gz").array for folder in ("here", "there")
        )
        np.testing.assert_array_equal(here, there)
    pairing = match_files(tmp_path / "there", blobs / "labelsTr")
    assert evaluate(pairing, workers=cluster) == evaluate(pairing, workers=1)


def test_trials_of_a_benchmark_run_on_it_as_in_one_process(cluster, blobs, workspace, tmp_path):
    def found(output, workers):
        result = api.benchmark(
            blobs,
            "tiny",
            ("linear-probe", "zero-shot"),
            tmp_path / output,
            ks=(1,),
            settings={"epochs": 1, "crops_per_step": 1},
            device="cpu",
            workers=workers,
            workspace=workspace,
        )
        return [(row.method, row.mean, row.incompatibility) for row in result.rows]

    assert found("there", cluster) == found("here", 1)
