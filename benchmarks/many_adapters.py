"""Ten black-box adapters in one `fseft predict` against one of them, on phantoms, with the embedded model on a CPU.

`python benchmarks/many_adapters.py [--work DIR]` prints JSON: the seconds of both and their ratio. Both are measured
in turns, and the fastest of each counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from fseft.steps.adapt import adapt
from fseft.steps.jobs import AdaptRequest
from fseft.steps.passes import group_passes, open_adapters
from fseft.steps.phantom import PhantomSet, write_phantoms
from fseft.steps.predict import PredictRequest, predict
from fseft.store import Store

ADAPTERS, SCANS, TURNS = 10, 2, 3
METHODS = ("linear-probe", "spatial-adapter")
STRUCTURES = ("liver", "kidney_left", "lung_right", "heart", "vertebrae", "spleen", "aorta", "stomach")
SETTINGS = ("epochs=2", "rounds=1", "plateau=false")


def make_adapters(data: Path, work: Path) -> list[Path]:
    """Adapters of both methods, each for two structures; how good they are makes no difference to the time."""
    made = []
    for number in range(ADAPTERS):
        labels = tuple(STRUCTURES[(number + step) % len(STRUCTURES)] for step in range(2))
        method, output = METHODS[number % len(METHODS)], work / f"adapter-{number}"
        request = AdaptRequest(
            data,
            "phantom-tiny",
            method,
            k=1,
            seed=number,
            labels=labels,
            settings=SETTINGS,
            device="cpu",
            output=output,
        )
        made.append(adapt(request, Store(work)).adapter)
    return made


def seconds(adapters: list[Path], data: Path, work: Path) -> float:
    """The time of one prediction of all scans, networks and files included."""
    with tempfile.TemporaryDirectory() as output:
        began = time.perf_counter()
        predict(PredictRequest((data / "imagesTs",), Path(output) / "out", tuple(adapters)), Store(work))
        return time.perf_counter() - began


def main() -> None:
    """Make what is needed, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    work = parser.parse_args().work or Path(tempfile.mkdtemp())
    data = work / "phantoms"
    if not (data / "dataset.json").is_file():
        write_phantoms(data, PhantomSet(data.name, "ct", STRUCTURES, cases=1), test_cases=SCANS)
    adapters = make_adapters(data, work)
    seconds(adapters[:1], data, work)  # what is loaded once counts for neither
    turns = [(seconds(adapters[:1], data, work), seconds(adapters, data, work)) for _ in range(TURNS)]
    one, many = (min(times) for times in zip(*turns, strict=True))
    passes = len(group_passes(open_adapters(adapters, Store(work))))
    told = {"passes": passes, "scans": SCANS, "one_seconds": round(one, 2), f"{ADAPTERS}_seconds": round(many, 2)}
    print(json.dumps({**told, "ratio": round(many / one, 3)}))


if __name__ == "__main__":
    main()
