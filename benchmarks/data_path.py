"""Fingerprint, preprocessing and prediction of generated CT: CPU seconds, peak memory, Mvoxel/s.

Run: `python benchmarks/data_path.py [--cases 6] [--shape 94,208,208]`. Each stage runs in a
separate process with one thread; CPU seconds exclude imports, peak memory includes them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STAGES = ("fingerprint", "preprocess", "predict")


def make_dataset(folder: Path, cases: int, shape: tuple[int, ...]) -> None:
    """Writes CT-like volumes of smooth blobs and noise, four labels, 0.8-1.0 x 1.5-2.5 mm."""
    from scipy.ndimage import gaussian_filter

    from fseft.volume.geometry import Geometry
    from fseft.volume.image import write_labels, write_volume

    for number in range(cases):
        rng = np.random.default_rng(number)
        field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 8)
        labels = np.digitize(field, np.quantile(field, (0.9, 0.93, 0.96, 0.98))).astype(np.uint8)
        image = -1000 + 1050 * (
            gaussian_filter(np.ones(shape, np.float32), 20, mode="constant") > 0.6
        )
        image = image + 40 * labels + rng.normal(0, 20, shape)
        spacing = (rng.uniform(1.5, 2.5), *(2 * [rng.uniform(0.8, 1.0)]))
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1.0
        geometry = Geometry((shape[0], shape[1], shape[2]), affine)
        for kind, name, write, array in (
            ("imagesTr", f"case_{number}_0000", write_volume, image[None].astype(np.int16)),
            ("labelsTr", f"case_{number}", write_labels, labels),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            write(folder / kind / f"{name}.nii.gz", array, geometry)
    names = {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}
    description = {
        "channel_names": {"0": "CT"},
        "labels": names,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def run_stage(stage: str, data: Path, workspace: Path) -> dict[str, float]:
    """Runs one stage in this process and measures it."""
    from fseft.model_zoo.catalogue import find_model
    from fseft.planning.dataset_reading import read_dataset
    from fseft.planning.fingerprinting import fingerprint_dataset
    from fseft.planning.plan import make_plan
    from fseft.planning.preprocessing import preprocess
    from fseft.workspace import Workspace

    store = Workspace(workspace)
    if stage == "fingerprint":
        import fseft.volume.fingerprint  # noqa: F401 - its imports are not the work

        started = time.process_time()
        fingerprint_dataset(read_dataset(data), store)
        return _measured(started)
    dataset = read_dataset(data)
    _, plan = make_plan(dataset, find_model("phantom-tiny", store), store)
    if stage == "preprocess":
        spacing = plan.preprocessing.model_copy(update={"spacing_mm": (1.5, 1.5, 1.5)})
        started = time.process_time()
        done = preprocess(dataset, plan.model_copy(update={"preprocessing": spacing}), store)
        result = _measured(started)
        voxels = sum(int(np.prod(done.open(case).shape)) for case in done.processed)
        return result | {
            "output_mvoxel": voxels / 1e6,
            "mvoxel_per_cpu_s": voxels / 1e6 / result["cpu_s"],
        }
    return _predict(data, workspace)


def _predict(data: Path, workspace: Path) -> dict[str, float]:
    from fseft import api

    adapter = api.adapt(
        data, "phantom-tiny", "linear-probe", k=1, minutes=0.01, device="cpu", workspace=workspace
    )
    scan = next((data / "imagesTr").iterdir())
    started = time.process_time()
    api.predict(scan, adapter, workspace / "predictions", device="cpu")
    result = _measured(started)
    voxels = float(np.prod(_shape(scan)))
    return result | {"mvoxel_per_cpu_s": voxels / 1e6 / result["cpu_s"]}


def _measured(started: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": round(time.process_time() - started, 3), "peak_mib": round(peak)}


def _shape(scan: Path) -> tuple[int, ...]:
    from fseft.volume.image import read_volume

    return read_volume(scan).geometry.shape


def main() -> None:
    """Makes the data, runs each stage in a fresh process, and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--shape", default="94,208,208")
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.stage:
        print(
            json.dumps(run_stage(options.stage, options.folder / "data", options.folder / "work"))
        )
        return
    shape = tuple(int(side) for side in options.shape.split(","))
    with tempfile.TemporaryDirectory() as name:
        make_dataset(Path(name) / "data", options.cases, shape)
        results = {stage: _in_own_process(stage, name) for stage in STAGES}
    print(json.dumps({"cases": options.cases, "shape": shape, **results}, indent=2))


def _in_own_process(stage: str, folder: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--stage", stage, "--folder", folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
