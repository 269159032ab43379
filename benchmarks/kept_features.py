"""Black-box methods on cached features and on features recomputed at every step, on phantoms.

`python benchmarks/kept_features.py [--work DIR]` prints JSON: seconds of the feature pass and of
the training, Dice on unseen phantoms, and the difference, for each method. Both run to the end
of their schedule: stopping at a high learning rate changes the Dice by a point from run to run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fseft import api
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate
from fseft.experiment.callbacks import Callbacks
from fseft.phantom import PhantomSet, write_phantoms
from fseft.schemas import Run
from fseft.workspace import read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

METHODS = ("linear-probe", "spatial-adapter")
STRUCTURES = ("liver", "kidney_left", "lung_right", "heart", "vertebrae")
UNSEEN = 6
EPOCHS = {"cached": 90, "recomputed": 60}
"""Of five steps each; steps on kept features cost little, so that they may be more."""


def measure(
    data: Path, work: Path, method: str, way: str, seed: int
) -> dict[str, float | int | str]:
    """Times the feature pass and the training of an adaptation, and scores unseen phantoms."""
    output = work / f"{method}-{way}"
    passes = []

    class Passes(Callbacks):
        @contextmanager
        def progress(self, description: str, total: int) -> Iterator[Callable[[str], None]]:
            del total
            began = time.monotonic()
            yield lambda _: None
            if description == "features":
                passes.append(time.monotonic() - began)

    adapter = api.adapt(
        data,
        "phantom-tiny",
        method,
        k=5,
        seed=seed,
        device="cpu",
        output=output,
        workspace=work,
        callbacks=Passes(),
        features=way,
        epochs=EPOCHS[way],
        early_stopping=False,
    )
    run = read_document(output / "run.json", Run)
    predicted = work / f"{output.name}-predicted"
    api.predict(data / "imagesTs", adapter, predicted, device="cpu")
    scores = evaluate(match_files(predicted, data / "labelsTs"), workers=1)
    return {
        "method": method,
        "features": way,
        "pass_seconds": round(sum(passes), 1),
        "training_seconds": round(run.seconds - sum(passes), 1),
        "epochs": run.epochs,
        "dice": round(100 * (scores.mean["dice"] or 0.0), 2),
    }


def main() -> None:
    """Runs both methods with cached and recomputed features."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp())
    data = work / "phantoms"
    if not (data / "dataset.json").is_file():
        phantoms = PhantomSet(data.name, "ct", STRUCTURES, cases=5, seed=1000 + options.seed)
        write_phantoms(data, phantoms, test_cases=UNSEEN, shift=0.5, spacing_mm=5.0)
    for method in METHODS:
        rows = [measure(data, work, method, way, options.seed) for way in ("cached", "recomputed")]
        for row in rows:
            print(json.dumps(row), flush=True)
        apart = rows[0]["dice"] - rows[1]["dice"]  # type: ignore[operator]
        print(
            json.dumps({"method": method, "kept minus fresh, Dice points": round(apart, 2)}),
            flush=True,
        )


if __name__ == "__main__":
    main()
