"""Pre-training by several processes, as torchrun starts them: the same as by one, also after a
kill.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fseft.api._resolve import as_dataset
from fseft.pretraining.configure import DEFAULT_TRAINING, PretrainRequest
from fseft.pretraining.run import pretrain
from fseft.workspace import Workspace
from tests.sample_data import equal_tensors, write_dataset

pytestmark = pytest.mark.full

STEPS = 50
NETWORK = {"channels": [4, 8], "features": 4}
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "fseft",
]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """CT with a kidney, MR with a kidney of another spelling and a tumour."""
    folder = tmp_path_factory.mktemp("datasets")
    first = write_dataset(folder / "first", labels={"Left kidney": 1}, cases=("a", "b"), keep=(1,))
    labels = {"tumour": 7, "kidney (L)": 1}
    return first, write_dataset(
        folder / "second", labels=labels, cases=("c", "d"), channel="MR", seed=5
    )


def command(datasets, store, *more, steps=STEPS):
    network = [f"--set={key}={value}" for key, value in NETWORK.items()]
    epochs = ["--epochs", str(steps // 5), "--steps-per-epoch", "5"]
    training = [*epochs, "--crops-per-step", "1", "--patch", "32,32,32", "--device", "cpu"]
    options = [
        "--name",
        "made",
        "--window=-200,500",
        "--validation-fraction",
        "0.5",
        "--workspace",
        str(store.root),
    ]
    return [*TORCHRUN, "pretrain", *map(str, datasets), *network, *training, *options, *more]


def alone(datasets, store, steps=STEPS, **changed):
    """The same in this process, with twice the crops."""
    training = DEFAULT_TRAINING.model_copy(update={"epochs": steps // 5, "crops_per_step": 2})
    request = PretrainRequest(
        tuple(map(as_dataset, datasets)),
        "made",
        hparams=NETWORK,
        window=(-200.0, 500.0),
        patch_size=(32, 32, 32),
        training=training,
        steps_per_epoch=5,
        validation_fraction=0.5,
        **changed,
    )
    return pretrain(request, store)


def curve(store):
    lines = (store.model("made") / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def run(arguments):
    return subprocess.run(arguments, capture_output=True, encoding="utf-8", timeout=500)


@pytest.fixture(scope="module")
def by_two(datasets, tmp_path_factory):
    """The workspace of two ranks that nobody disturbed."""
    store = Workspace(tmp_path_factory.mktemp("two"))
    done = run(command(datasets, store))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model made: 2 structures, 50 steps") == 1  # one rank reports for both
    return store


def same_curve(one, other):
    pairs = list(zip(curve(one), curve(other), strict=True))
    assert all(a["loss"] == pytest.approx(b["loss"], abs=1e-4) for a, b in pairs)
    assert all(a["dice"] == pytest.approx(b["dice"], abs=1e-3) and a["dice"] for a, b in pairs)


def test_two_ranks_learn_as_one_with_twice_the_crops(by_two, datasets, tmp_path):
    one = Workspace(tmp_path)
    alone(datasets, one)
    same_curve(one, by_two)


def train_until_killed(datasets, store, *more, epochs=3):
    """Two ranks of which the second is killed after so many epochs."""
    arguments = command(datasets, store, *more)
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while newest_checkpoint(store) < f"checkpoint-{epochs:06}.pt":
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        os.kill(rank_one(process.pid), signal.SIGKILL)
        process.communicate(timeout=300)
    assert process.returncode != 0
    assert store.models() == []


@pytest.fixture(scope="module")
def killed(datasets, tmp_path_factory):
    """The workspace of a training that was killed."""
    store = Workspace(tmp_path_factory.mktemp("killed"))
    train_until_killed(datasets, store)
    return store


def newest_checkpoint(store):
    return max((path.name for path in store.model("made").glob("checkpoint-*.pt")), default="")


def rank_one(torchrun):
    """The process id of the second of torchrun's children."""
    children = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    return next(
        int(child)
        for child in children
        if b"\0RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes()
    )


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks in /proc")


@linux
def test_after_a_kill_of_a_rank_the_weights_become_the_very_same(
    killed, by_two, datasets, tmp_path
):
    store = Workspace(shutil.copytree(killed.root, tmp_path / "copy"))
    done = run(command(datasets, store, "--resume"))
    assert done.returncode == 0, done.stderr
    resumed, whole = (load_file(s.model("made") / "weights.safetensors") for s in (store, by_two))
    assert equal_tensors(resumed, whole)
    assert [line["epoch"] for line in curve(store)] == list(range(1, 11))


@linux
def test_ranks_that_share_out_the_network_learn_the_same_also_after_a_kill(
    datasets, by_two, tmp_path
):
    store = Workspace(tmp_path)
    train_until_killed(datasets, store, "--shard")
    done = run(command(datasets, store, "--shard", "--resume"))
    assert done.returncode == 0, done.stderr
    same_curve(store, by_two)


@linux
def test_a_run_resumes_with_another_number_of_ranks(killed, by_two, datasets, tmp_path, caplog):
    store = Workspace(shutil.copytree(killed.root, tmp_path / "copy"))
    alone(datasets, store, resume=True)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["resuming with 1 rank instead of 2, on the same crops"]
    same_curve(store, by_two)


@pytest.mark.parametrize(
    ("folders", "option", "message"),
    [
        (["nowhere"], "--fp16", "nowhere: rank 0: does not exist"),
        (
            ["first", "second"],
            "--set=depth=3",
            "rank 0: neither the training nor the network has a setting 'depth'",
        ),
        (["first", "second"], "--resume", "rank 0: no checkpoint to resume from"),
    ],
)
def test_bad_input_is_reported_once(folders, option, message, datasets, tmp_path):
    done = run(
        command([datasets[0].parent / name for name in folders], Workspace(tmp_path), option)
    )
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
