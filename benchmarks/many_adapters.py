"""Ten black-box adapters in one `fseft predict`, relative to the first of them, on phantoms.

`python benchmarks/many_adapters.py [--work DIR]` prints JSON: the seconds of both and their
ratio, on a CPU, measured alternately; the fastest of each counts. The backbone is the embedded
model, or a wide network with random weights: `--network segresnet` takes a minute per turn.
`--methods linear-probe` uses one method for all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from safetensors.torch import save_file

from fseft import api
from fseft.inference.adapter_groups import group_adapters, open_adapters
from fseft.learn.networks import backbone
from fseft.phantom import PhantomSet, write_phantoms
from fseft.schemas import Contract, Intensity, ModelCard
from fseft.workspace import Workspace, file_digest, write_document

EMBEDDED = "phantom-tiny"
ADAPTERS, SCANS = 10, 2
STRUCTURES = (
    "liver",
    "kidney_left",
    "lung_right",
    "heart",
    "vertebrae",
    "spleen",
    "aorta",
    "stomach",
)
SETTINGS = {"epochs": 2, "feature_passes": 1, "early_stopping": False}
SPACING_MM, PATCH = (4.0, 4.0, 4.0), (64, 64, 64)


def make_model(network: str, store: Workspace) -> str:
    """Writes a model of the workspace with random weights, which do not affect the time."""
    name = f"random-{network}"
    path = store.model(name) / "weights.safetensors"
    if name not in store.models():
        built = backbone.build_network(
            backbone.get_architecture(network),
            in_channels=1,
            out_channels=len(STRUCTURES),
            hparams={},
            seed=0,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(built.state_dict(), path)
        window = {"ct": Intensity(scheme="window", low=-200, high=500)}
        contract = Contract(spacing_mm=SPACING_MM, intensity=window, patch_size=PATCH)
        card = ModelCard(
            name=name,
            architecture=network,
            classes=STRUCTURES,
            contract=contract,
            sha256=file_digest(path),
        )
        write_document(path.with_name("model.json"), card)
    return name


def make_adapters(data: Path, store: Workspace, model: str, methods: list[str]) -> list[Path]:
    """Makes adapters of these methods in turn, each for two structures."""
    made = []
    for number in range(ADAPTERS):
        second = number + 1 + number // len(STRUCTURES)
        labels = tuple(STRUCTURES[place % len(STRUCTURES)] for place in (number, second))
        method = methods[number % len(methods)]
        adapter = api.adapt(
            data,
            model,
            method,
            k=1,
            labels=labels,
            settings=SETTINGS,
            device="cpu",
            output=store.root / "adapters" / model / f"{method}-{number}",
            workspace=store,
        )
        made.append(adapter.path)
    return made


def seconds(adapters: list[Path], data: Path, store: Workspace) -> float:
    """Returns the time of one prediction of all scans, with networks and files."""
    with tempfile.TemporaryDirectory() as output:
        began = time.perf_counter()
        folder = Path(output) / "out"
        api.predict(data / "imagesTs", adapters, folder, device="cpu", workspace=store)
        return time.perf_counter() - began


def main() -> None:
    """Makes models and adapters, and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, help="where models and adapters are kept for the next time"
    )
    parser.add_argument(
        "--network", help="an architecture, with random weights, instead of the embedded model"
    )
    parser.add_argument(
        "--methods", default="linear-probe,spatial-adapter", help="of the adapters, in turn"
    )
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    store = Workspace(options.work or Path(tempfile.mkdtemp()))
    data = store.root / "phantoms"
    if not (data / "dataset.json").is_file():
        write_phantoms(data, PhantomSet(data.name, "ct", STRUCTURES, cases=1), test_cases=SCANS)
    model = make_model(options.network, store) if options.network else EMBEDDED
    adapters = make_adapters(data, store, model, options.methods.split(","))
    if not options.network:
        seconds(adapters[:1], data, store)  # what is loaded once counts for neither
    turns = [
        (seconds(adapters[:1], data, store), seconds(adapters, data, store))
        for _ in range(options.turns)
    ]
    one, many = (min(times) for times in zip(*turns, strict=True))
    passes = len(group_adapters(open_adapters(adapters, store)))
    told = {"model": model, "methods": options.methods, "passes": passes, "scans": SCANS}
    times = {
        "one_seconds": round(one, 2),
        f"{ADAPTERS}_seconds": round(many, 2),
        "ratio": round(many / one, 3),
    }
    print(json.dumps({**told, **times}))


if __name__ == "__main__":
    main()
