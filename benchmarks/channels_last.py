"""Networks with channels last, the memory format of `fseft` on a CPU, and with channels first.

`python benchmarks/channels_last.py` prints, for each network, the seconds of a prediction and of a
training step in both formats, measured alternately; the fastest of each counts.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from fseft.learn.networks import backbone
from fseft.learn.training.memory_format import to_device

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS: dict[str, dict[str, Any]] = {
    "resunet": {},
    "unet": {},
    "segresnet": {"init_filters": 16},
    "dynunet": {"filters": [16, 32, 64, 128]},
    "mednext": {"init_filters": 8},
}
TURNS, CROPS, SIDE = 4, 2, 64


def seconds(work: Callable[[], object]) -> float:
    """Returns the seconds of the fastest call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _train_step(network: torch.nn.Module, images: torch.Tensor) -> None:
    network(images).square().mean().backward()


def main() -> None:
    """Measures all networks."""
    images = torch.randn(CROPS, 1, SIDE, SIDE, SIDE)
    for name, hparams in NETWORKS.items():
        made = backbone.get_architecture(name)
        usual, last = (
            backbone.build_network(made, in_channels=1, out_channels=3, hparams=hparams, seed=0)
            for _ in range(2)
        )
        layouts = {"usual": usual, "channels last": to_device(last, "cpu")}
        found: dict[str, list[float]] = {}
        for turn in range(1 + TURNS):
            for layout, network in layouts.items():
                with torch.no_grad():
                    predicting = seconds(partial(network, images))
                training = seconds(partial(_train_step, network, images))
                if turn:  # the first one warms up
                    found.setdefault(f"predict, {layout}", []).append(predicting)
                    found.setdefault(f"train, {layout}", []).append(training)
        best = {what: round(min(times), 3) for what, times in found.items()}
        for what in ("predict", "train"):
            best[f"{what}, ratio"] = round(
                best[f"{what}, usual"] / best[f"{what}, channels last"], 2
            )
        print(json.dumps({"network": name, **best}), flush=True)


if __name__ == "__main__":
    main()
