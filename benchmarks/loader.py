"""Crops per second that one core delivers to `pretrain`, and that a small network consumes.

`OMP_NUM_THREADS=1 python benchmarks/loader.py [--crops 40]` prints JSON: both rates in CPU
seconds and their ratio.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fseft import api
from fseft.learn.networks.backbone import build_network, count_parameters, get_architecture
from fseft.learn.sampling.augmentation import load_augmentations
from fseft.learn.sampling.multi_dataset_sampler import (
    BatchRequest,
    draw_crop_request,
    read_batch,
    sampling_probabilities,
)
from fseft.learn.training.losses import load_loss, masked_losses, structure_masks
from fseft.learn.training.memory_format import to_device
from fseft.learn.training.prefetch import derived_seed
from fseft.phantom import PhantomSet, write_phantoms
from fseft.pretraining.configure import PretrainRequest
from fseft.pretraining.datasets import prepare_training_datasets
from fseft.training_config import DEFAULT_AUGMENTATIONS
from fseft.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

CROPS = 2  # of a step, as by default
SETS = (
    PhantomSet("lungs", "ct", ("lung_right", "lung_left"), 3),
    PhantomSet("livers", "ct", ("liver",), 3, seed=1),
)


def seconds(work: Callable[[int], object], count: int) -> float:
    """Returns the CPU seconds of one call, after a warm-up."""
    work(0)
    began = time.process_time()
    for number in range(count):
        work(number)
    return (time.process_time() - began) / count


def main() -> None:
    """Makes phantoms, then times drawing and training, each with one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in SETS:
            write_phantoms(folder / one.name, one, spacing_mm=3.0)
        request = PretrainRequest(
            tuple(api.read_dataset(folder / one.name) for one in SETS),
            "m",
            validation_fraction=0.0,
        )
        assembly = prepare_training_datasets(request, Workspace(folder / "work"))
        odds = sampling_probabilities(
            [len(source.cases) for source in assembly.training], request.temperature
        )

        def order(step: int) -> BatchRequest:
            picks = tuple(
                draw_crop_request(
                    assembly.training,
                    odds,
                    request.training.foreground_fraction,
                    derived_seed(0, "crops", step, number),
                )
                for number in range(CROPS)
            )
            return BatchRequest(
                picks,
                request.patch_size,
                len(assembly.classes),
                load_augmentations(DEFAULT_AUGMENTATIONS),
            )

        loading = seconds(lambda step: read_batch(order(step)), options.crops // CROPS) / CROPS
        batch = read_batch(order(0))
    network = to_device(
        build_network(
            get_architecture("resunet"), in_channels=1, out_channels=3, hparams={}, seed=0
        ),
        "cpu",
    )
    optimizer = torch.optim.AdamW(network.parameters())

    def train(_: int) -> None:
        optimizer.zero_grad()
        masks = structure_masks(torch.from_numpy(batch.labels), 3)
        logits = network(torch.from_numpy(batch.images))
        loss = masked_losses(
            logits, masks, torch.from_numpy(batch.annotated), load_loss("dice_ce")
        ).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    train(0)  # the first step prepares the next ones
    training = seconds(train, max(3, options.crops // 4)) / CROPS
    rates = {"parameters": count_parameters(network), "patch": request.patch_size}
    rates |= {"delivered_per_s": round(1 / loading, 1), "consumed_per_s": round(1 / training, 2)}
    print(json.dumps({**rates, "ratio": round(training / loading, 1)}))


if __name__ == "__main__":
    main()
