"""Speed and memory compared with other packages, as a table, JSON and a history: `make bench`.

Needs the extra `bench`. Both sides run alternately, each in a separate process with one
thread, and the medians of CPU seconds and of peak memory (PSS of the process and its children) are
compared. A row whose results differ is marked. Rows of tasks count CPU seconds of the task without
imports, rows of commands count everything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
PACKAGES = ("fseft", "torch", "monai", "nnunetv2", "peft", "numpy", "scipy")
MIB = 1 << 10  # in the kilobytes of /proc


@dataclass(frozen=True)
class Row:
    """A task, and who else does it.

    Attributes:
        ours: Command of this package; `{out}` is the file of its result, `{data}` the folder of
            `bench_data.py`, and `{work}` an empty folder.
        peer: Command of the peer.
        what: The peer, and the size of the task.
        agreement: Fraction of equal values that is required of integers; floats must be within
            1e-3 of the largest; 0 if there is nothing to compare.
        ours_before: Commands that run before ours in the same folders, and are not measured.
        peer_before: The same of the peer.
    """

    ours: tuple[str, ...]
    peer: tuple[str, ...]
    what: str
    agreement: float = 0.0
    ours_before: tuple[tuple[str, ...], ...] = ()
    peer_before: tuple[tuple[str, ...], ...] = ()


def _task(name: str, what: str, agreement: float, *arguments: str) -> Row:
    script = str(HERE / "bench_tasks.py")
    ours, peer = (_python(script, name, side, "{out}", *arguments) for side in ("ours", "peer"))
    return Row(ours, peer, what, agreement)


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def _fseft(command: str, *arguments: str) -> tuple[str, ...]:
    dataset = "{data}/raw/Dataset001_Bench"
    return _python("-m", "fseft", command, dataset, "--workspace", "{work}", *arguments)


def _nnunet(entry: str, *arguments: str) -> tuple[str, ...]:
    module = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
    return _python("-c", f"from {module} import {entry} as main; main()", *arguments)


_PLAN = _fseft("plan", "--model", "none", "--spacing", "3.2,1.5,1.5", "--device", "cpu")
_NNUNET_PLAN = _nnunet("plan_and_preprocess_entry", "-d", "1", "-npfp", "1", "--no_pp")

ROWS = {
    "plan": Row(_PLAN, _NNUNET_PLAN, "nnUNetv2_plan_and_preprocess --no_pp, 6 CTs"),
    "preprocess": Row(
        _fseft("preprocess", "--model", "none"),
        _nnunet("preprocess_entry", "-d", "1", "-c", "3d_fullres", "-np", "1"),
        "nnUNetv2_preprocess, 6 CTs to the same spacing",
        ours_before=(_PLAN,),
        peer_before=(_NNUNET_PLAN,),
    ),
    "evaluate": _task(
        "evaluate",
        "surface-distance, 20 cases of 4 structures, with imports",
        0.99,
        "{data}",
    ),
    "help": Row(
        _python("-m", "fseft", "--help"),
        _nnunet("plan_and_preprocess_entry", "-h"),
        "nnUNetv2_plan_and_preprocess -h",
    ),
    "start": Row(
        _python(
            "-c",
            "from fseft.builtin.architectures.swinunetr import SPEC; "
            "from fseft.learn.networks.backbone import build_network, get_architecture; "
            "import fseft.inference.run; "
            "build_network(get_architecture('swinunetr'), in_channels=1, out_channels=2, "
            "hparams={'feature_size': 12}, seed=0)",
        ),
        _python(
            "-c",
            "from monai.inferers import SlidingWindowInferer; "
            "from monai.networks.nets import SwinUNETR; "
            "SwinUNETR(in_channels=1, out_channels=2, feature_size=12)",
        ),
        "import of MONAI, and a network: what comes before the first window",
    ),
    "export-5": _task("export-5", "nnU-Net's resampling and arg max, 5 classes", 0.9999),
    "export-25": _task("export-25", "the same, 25 classes", 0.9999),
    "export-118": _task("export-118", "the same, 118 classes", 0.9999),
    "window": _task("window", "MONAI's sliding window, batches of 4, resunet", 0.999),
    "lora-32": _task("lora-32", "PEFT, 32 channels of 48^3, 5 steps", 0.999),
    "lora-128": _task("lora-128", "PEFT, 128 channels of 20^3, 5 steps", 0.999),
}


@dataclass(frozen=True)
class Run:
    """CPU seconds and peak memory of one process, and the result that it wrote."""

    cpu_seconds: float
    peak_mib: float
    result: np.ndarray | None


def run(command: tuple[str, ...], before: tuple[tuple[str, ...], ...], data: Path) -> Run:
    """Runs commands, and measures the tree of processes of the last one."""
    with tempfile.TemporaryDirectory() as folder:
        out, work = Path(folder) / "result.npy", Path(folder) / "work"
        environment = {**os.environ, **THREADS, "nnUNet_raw": str(data / "raw")}
        for kind in ("preprocessed", "results"):
            environment[f"nnUNet_{kind}"] = str(work / kind)
            (work / kind).mkdir(parents=True)
        places = {"{out}": str(out), "{work}": str(work), "{data}": str(data)}
        for preparation in before:
            words = _filled(preparation, places)
            subprocess.run(words, check=True, capture_output=True, env=environment)
        words = _filled(command, places)
        started = os.times()
        process = subprocess.Popen(
            words,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        peaks = [0.0]
        watcher = threading.Thread(target=_watch, args=(process, peaks))
        watcher.start()
        text, _ = process.communicate()
        watcher.join()
        if process.returncode:
            raise SystemExit(f"failed: {' '.join(words)}")
        after = os.times()
        seconds = sum(after[2:4]) - sum(started[2:4])
        result = None
        if out.is_file():
            result = np.load(out)
            seconds = json.loads(text.splitlines()[-1])["cpu_seconds"]
        return Run(seconds, peaks[0], result)


def _filled(command: tuple[str, ...], places: dict[str, str]) -> list[str]:
    words = list(command)
    for name, value in places.items():
        words = [word.replace(name, value) for word in words]
    return words


def _watch(process: subprocess.Popen[str], peaks: list[float]) -> None:
    while process.poll() is None:
        peaks.append(_tree_pss(process.pid) / MIB)
        peaks[0] = max(peaks)
        time.sleep(0.05)


def _tree_pss(pid: int) -> int:
    """Returns the proportional set size of a process and its descendants, in kilobytes."""
    total = 0
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (OSError, StopIteration):  # it has ended
        return total
    return total + sum(_tree_pss(int(child)) for child in children)


def equal(ours: Run, peer: Run, agreement: float) -> bool | None:
    """Compares two results; None if there is nothing to compare."""
    if ours.result is None or peer.result is None:
        return None
    if ours.result.dtype.kind in "iu":
        return float(np.mean(ours.result == peer.result)) >= agreement
    largest = float(np.abs(peer.result).max())
    return bool(np.mean(np.abs(ours.result - peer.result) <= 1e-3 * largest) >= agreement)


def measure(name: str, repeats: int, data: Path) -> dict[str, object]:
    """Returns the medians of a row."""
    row = ROWS[name]
    pairs = [
        (run(row.ours, row.ours_before, data), run(row.peer, row.peer_before, data))
        for _ in range(repeats)
    ]
    ours, peer = (list(side) for side in zip(*pairs, strict=True))
    seconds = [median(run.cpu_seconds for run in side) for side in (ours, peer)]
    peaks = [median(run.peak_mib for run in side) for side in (ours, peer)]
    return {
        "row": name,
        "peer": row.what,
        "cpu_seconds": round(seconds[0], 2),
        "peer_cpu_seconds": round(seconds[1], 2),
        "times_faster": round(seconds[1] / max(seconds[0], 1e-3), 2),
        "peak_mib": round(peaks[0]),
        "peer_peak_mib": round(peaks[1]),
        "equal": equal(ours[-1], peer[-1], row.agreement),
        "repeats": repeats,
    }


def versions() -> dict[str, str]:
    """Returns the versions of the packages that are compared, and the machine."""
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}"
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def show(results: list[dict[str, object]]) -> None:
    """Prints the table."""
    print(f"{'row':<12}{'ours':>8}{'peer':>9}{'faster':>8}{'MiB':>7}{'peer':>7}  equal  peer")
    for result in results:
        same = {True: "yes", False: "NO", None: "-"}[result["equal"]]  # type: ignore[index]
        print(
            f"{result['row']:<12}{result['cpu_seconds']:>7}s{result['peer_cpu_seconds']:>8}s"
            f"{result['times_faster']:>7}x{result['peak_mib']:>7}{result['peer_peak_mib']:>7}"
            f"  {same:<5}  {result['peer']}"
        )


def main() -> None:
    """Parses options, measures, prints, and adds to the history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", default="", help="only rows whose name begins with this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--history", type=Path, default=Path("build/bench-history.jsonl"))
    arguments = parser.parse_args()
    names = [name for name in ROWS if name.startswith(arguments.row)]
    data = arguments.json.parent.absolute() / "bench-data"
    subprocess.run(_python(str(HERE / "bench_data.py"), str(data)), check=True)
    results = []
    for name in names:
        results.append(measure(name, arguments.repeats, data))
        print(f"{name}: {results[-1]['times_faster']} times faster", file=sys.stderr)
    report = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "rows": results,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2), encoding="utf-8")
    with arguments.history.open("a", encoding="utf-8") as history:
        history.write(json.dumps(report) + "\n")
    show(results)


if __name__ == "__main__":
    main()
