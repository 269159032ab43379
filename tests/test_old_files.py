"""Files that fseft 0.1 wrote before its redesign still do what they did.

`fixtures/v0_1/workspace` is a workspace of version 0.1: a dataset, its fingerprint, plans and
caches, finished and interrupted runs, models, predictions and a benchmark. `expected.json` next to
it holds the command lines that made them, and what that version computed from them. The files
are never made again: a later version has to read them.

The tests use the program by its command line and its files alone, in the spelling of that version,
so that nothing in them has to follow a change of names.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  the name that everybody gives it
from safetensors.numpy import load_file

pytestmark = pytest.mark.full

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
COMMANDS = EXPECTED["commands"]
ADAPTERS = EXPECTED["adapters"]
SCAN = Path(EXPECTED["scan"])
CASE = SCAN.name.removesuffix("_0000.nii.gz")

OWN = [name for name, adapter in ADAPTERS.items() if adapter["package"] == "fseft"]
OF_PLUGINS = [name for name in ADAPTERS if name not in OWN]
FINISHED = ["lora", "linear-probe", "zero-shot", "affine", "spatial-adapter", "ssf"]

PREDICTED_AGAIN = 1e-3  # share of the voxels that may differ: rounding at the edge of a structure
WINDOWS_MOVED = 0.05  # where a scan has several windows, which version 0.1 did not space evenly
TRAINED_AGAIN = 1e-2  # the same where steps of a training were done on another machine, too


def fseft(arguments, folder, *, plugins=False):
    """Run the program in a workspace; what it prints."""
    left_out = {"FSEFT_NO_PLUGINS"} if plugins else set()
    done = subprocess.run(
        [sys.executable, "-m", "fseft", *map(str, arguments)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in left_out},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"fseft {' '.join(map(str, arguments))}\n{done.stderr}"
    return done.stdout


def predict(folder, output, adapters, *options, plugins=False):
    """Segment the test scan; on the CPU, as the expected label maps were."""
    given = [part for name in adapters for part in ("--adapter", name)]
    arguments = ["predict", SCAN.parent, "-o", output, *given, "--device", "cpu", *options]
    fseft(arguments, folder, plugins=plugins)
    return folder / output


def folder_of(name):
    return Path(ADAPTERS[name]["folder"])


def contents(folder, *patterns):
    """Files -> when they were written, and what they hold; one that is made again differs."""
    found = (path for pattern in patterns for path in folder.rglob(pattern))
    held = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in found}
    assert held
    return held


def assert_same_labels(path, expected, share):
    """The label map is on the grid of the expected one, and hardly differs from it."""
    found = sitk.ReadImage(str(path))
    wanted = sitk.ReadImage(str(FIXTURES / expected["label_map"]))
    assert found.GetSize() == wanted.GetSize()
    for grid in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(found, grid)(), getattr(wanted, grid)(), atol=1e-4)
    other = sitk.GetArrayFromImage(found) != sitk.GetArrayFromImage(wanted)
    assert other.mean() <= share, f"{other.sum()} of {other.size} voxels differ"


def copied(folder):
    return shutil.copytree(FIXTURES / "workspace", folder / "workspace")


@pytest.fixture
def workspace(tmp_path):
    """A copy of the old workspace."""
    return copied(tmp_path)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """What all adapters that need no plugin make of the scan, a folder for each."""
    workspace = copied(tmp_path_factory.mktemp("own"))
    return predict(workspace, "predicted", map(folder_of, OWN), "--overlap", "separate")


# --- predicting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_an_old_adapter_segments_a_scan_as_it_did(predicted, name):
    segmentation = predicted / folder_of(name).name / f"{CASE}.nii.gz"
    share = WINDOWS_MOVED if name.endswith("on-small") else PREDICTED_AGAIN
    assert_same_labels(segmentation, ADAPTERS[name], share)


@pytest.mark.parametrize("name", OF_PLUGINS)
def test_an_old_adapter_of_a_plugin_segments_a_scan_as_it_did(workspace, name):
    try:
        version(ADAPTERS[name]["package"])
    except PackageNotFoundError:
        pytest.skip(f"{ADAPTERS[name]['package']} is not installed")
    output = predict(workspace, "predicted", [folder_of(name)], plugins=True)
    assert_same_labels(output / f"{CASE}.nii.gz", ADAPTERS[name], PREDICTED_AGAIN)


def test_an_old_adapter_that_was_trained_with_mirroring_still_averages_over_mirrored_scans(
    workspace,
):
    output = predict(workspace, "predicted", [folder_of("affine")], "--tta")
    expected = ADAPTERS["affine"]["mirrored"]
    assert_same_labels(output / f"{CASE}.nii.gz", expected, PREDICTED_AGAIN)


@pytest.mark.parametrize("command", ["predicted", "predicted-together"])
def test_scans_that_were_segmented_are_not_segmented_again(workspace, command):
    arguments = COMMANDS[command]
    output = workspace / arguments[arguments.index("-o") + 1]
    before = contents(output, "*.nii.gz")
    fseft(arguments, workspace)
    assert contents(output, "*.nii.gz") == before


def test_old_segmentations_have_the_scores_that_they_had(workspace):
    expected = EXPECTED["evaluated"]
    scores = json.loads(fseft([*COMMANDS["evaluated"], "--json"], workspace))
    assert scores["mean_dice"] == pytest.approx(expected["mean_dice"], abs=1e-4)
    assert sorted(scores["cases"]) == expected["cases"]  # the training case is known, and left out


# --- adapting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_old_run_is_not_trained_again(workspace, name):
    folder = workspace / folder_of(name)
    before = contents(folder, "adapter.safetensors", "log.jsonl")
    fseft(COMMANDS[name], workspace)
    assert contents(folder, "adapter.safetensors", "log.jsonl") == before


def test_an_interrupted_old_run_resumes_after_its_last_epoch(workspace):
    expected = EXPECTED["interrupted"]
    folder = workspace / expected["folder"]
    log = folder / "log.jsonl"
    before = log.read_text(encoding="utf-8").splitlines()
    assert len(before) == expected["epochs_done"]
    fseft(COMMANDS["interrupted"], workspace)
    after = log.read_text(encoding="utf-8").splitlines()
    assert after[: len(before)] == before  # with the seconds that these epochs took then
    assert len(after) == expected["epochs"]
    output = predict(workspace, "predicted", [expected["folder"]])
    assert_same_labels(output / f"{CASE}.nii.gz", expected, TRAINED_AGAIN)


@pytest.mark.parametrize("model", ["phantom-tiny", "none"])
def test_an_old_plan_and_the_measurements_below_it_stay(workspace, model):
    # The plans were made with --memory 600MB: new ones would be others.
    kept = ("fingerprint.json", f"plan.{model}.json", "*.npz")
    before = contents(workspace / "fingerprints", *kept)
    fseft(["preprocess", "torsos", "--model", model], workspace)
    assert contents(workspace / "fingerprints", *kept) == before


def test_an_old_benchmark_makes_no_trial_again(workspace):
    folder = workspace / EXPECTED["compared"]["folder"]
    made = ("adapter.safetensors", "log.jsonl", "*.nii.gz")
    table = folder / "benchmark.csv"
    before, rows = contents(folder, *made), len(table.read_text(encoding="utf-8").splitlines())
    fseft(COMMANDS["compared"], workspace)
    assert contents(folder, *made) == before
    assert len(table.read_text(encoding="utf-8").splitlines()) == rows


# --- models ---------------------------------------------------------------------------------------


def test_a_model_that_was_pre_trained_can_be_adapted(workspace):
    expected = EXPECTED["new_on_pretrained"]
    fseft(COMMANDS["new-on-pretrained"], workspace)
    output = predict(workspace, "predicted", [expected["folder"]])
    assert_same_labels(output / f"{CASE}.nii.gz", expected, WINDOWS_MOVED)


def test_a_model_that_was_pre_trained_is_not_trained_again(workspace):
    folder = workspace / EXPECTED["pretrained"]["folder"]
    before = contents(folder, "weights.safetensors", "curve.jsonl")
    fseft(COMMANDS["pretrained"], workspace)
    assert contents(folder, "weights.safetensors", "curve.jsonl") == before


def test_an_interrupted_pre_training_resumes_after_its_last_epoch(workspace):
    expected = EXPECTED["interrupted_pretraining"]
    folder = workspace / expected["folder"]
    curve = folder / "curve.jsonl"
    before = curve.read_text(encoding="utf-8").splitlines()
    assert len(before) == expected["epochs_done"]
    fseft(COMMANDS["interrupted-pretraining"], workspace)
    after = curve.read_text(encoding="utf-8").splitlines()
    assert after[: len(before)] == before  # with the seconds that these epochs took then
    assert len(after) == expected["epochs"]
    assert not list(folder.glob("checkpoint-*.pt"))
    weights = load_file(folder / "weights.safetensors").values()
    mean = np.mean(np.abs(np.concatenate([one.ravel().astype(np.float64) for one in weights])))
    assert mean == pytest.approx(expected["mean_absolute_weight"], rel=TRAINED_AGAIN)
