"""Steps per second and memory of `pretrain` with one and two ranks, as a Markdown table.

`OMP_NUM_THREADS=1 python benchmarks/scaling.py [--steps 20]`: the default network on phantoms,
one thread and two crops of 64 voxels per rank; rates of the second half of the steps, peak
memory of the largest rank.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from fseft.phantom import PhantomSet, write_phantoms

SETS = (
    PhantomSet("lungs", "ct", ("lung_right", "lung_left"), 3),
    PhantomSet("livers", "ct", ("liver",), 3, seed=1),
)
WAYS: dict[str, tuple[str, ...]] = {
    "1 rank": ("1",),
    "1 rank, --checkpointing": ("1", "--checkpointing"),
    "2 ranks, DDP": ("2",),
    "2 ranks, FSDP2": ("2", "--shard"),
}
"""Number of ranks, and options."""


def measure(folder: Path, name: str, steps: int) -> None:
    """Trains in separate processes, and prints a row."""
    ranks, *options = WAYS[name]
    out = name.replace(" ", "").replace(",", "-").lower()
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks]
    half = [
        "--epochs",
        "2",
        "--steps-per-epoch",
        str(steps // 2),
        "--validation-share",
        "0",
        "--device",
        "cpu",
    ]
    arguments = [
        *(str(folder / one.name) for one in SETS),
        "--out",
        out,
        *half,
        "--workspace",
        str(folder),
        *options,
    ]
    command = [sys.executable, *launch, "-m", "fseft", "pretrain", *arguments]
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    curve = (folder / "models" / out / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    before, after = (json.loads(line)["seconds"] for line in curve)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rate = steps / 2 / (after - before)
    print(f"| {name} | {rate:.2f} | {2 * int(ranks) * rate:.2f} | {peak:.0f} |")


def main() -> None:
    """Measures each configuration in a separate process, so that peaks are separate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.way:
        measure(options.folder, options.way, options.steps)
        return
    print("| | steps/s | crops/s | peak MiB of a rank |\n|---|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for one in SETS:
            write_phantoms(Path(folder) / one.name, one, spacing_mm=3.0)
        for way in WAYS:
            same = ["--way", way, "--folder", folder, "--steps", str(options.steps)]
            subprocess.run([sys.executable, __file__, *same], check=True)


if __name__ == "__main__":
    main()
