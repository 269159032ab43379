"""Time and cost of pre-training SwinUNETR on many GPUs, modelled, as a Markdown table.

`python benchmarks/scaling_model.py`; every assumption is an option. Parameters and floating
point operations of a crop are counted on torch's `meta` device. A forward and backward pass
counts as three forward passes.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from fseft.learn.networks.backbone import build_network, count_parameters, get_architecture

PLANS = ((2_042, 4), (100_000, 64))
"""Volumes and GPUs."""


def counted(side: int) -> tuple[float, int]:
    """Counts the operations of a training step on one crop, and the parameters."""
    made = get_architecture("swinunetr")
    network = build_network(
        made, in_channels=1, out_channels=29, hparams={"feature_size": 48}, seed=0
    ).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 1, side, side, side, device="meta"))
    return 3 * counter.get_total_flops(), count_parameters(network)


def main() -> None:
    """Prints one column per plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=96, help="voxels along each axis of a crop")
    parser.add_argument("--crops", type=int, default=6, help="per GPU and step")
    parser.add_argument(
        "--seen", type=float, default=1000, help="crops of each volume during the training"
    )
    parser.add_argument(
        "--tflops", type=float, default=30, help="10^12 operations per second that a GPU sustains"
    )
    parser.add_argument("--price", type=float, default=2, help="of a GPU hour")
    parser.add_argument(
        "--crops-per-core", type=float, default=10, help="that a core draws per second at this size"
    )
    parser.add_argument(
        "--link", type=float, default=10, help="GB/s that a rank sends and receives"
    )
    parser.add_argument(
        "--volume-mb", type=float, default=30, help="of a preprocessed volume on disk"
    )
    options = parser.parse_args()
    operations, parameters = counted(options.side)
    columns = []
    for volumes, gpus in PLANS:
        crop_seconds = operations / (1e12 * options.tflops)
        step_seconds = options.crops * crop_seconds
        hours = volumes * options.seen * crop_seconds / gpus / 3600
        exchange = 2 * 4 * parameters * (gpus - 1) / gpus / (1e9 * options.link)
        cores = 1 / crop_seconds / options.crops_per_core
        bytes_per_second = gpus / crop_seconds * 4 * (options.side * 1.15) ** 3
        columns.append(
            {
                "volumes, GPUs": f"{volumes:,}, {gpus}",
                "operations of a crop, forward and backward": f"{operations / 1e12:.1f} T",
                "steps": f"{volumes * options.seen / gpus / options.crops:,.0f}",
                "seconds of a step": f"{step_seconds:.2f}",
                "exchange of gradients, without overlap": f"{exchange:.3f}",
                "hours": f"{hours:,.0f}",
                "price": f"{hours * gpus * options.price:,.0f}",
                "cores that draw crops, per GPU": f"{cores:.1f}",
                "TB on disk": f"{volumes * options.volume_mb / 1e6:.2f}",
                "GB/s read from it": f"{bytes_per_second / 1e9:.2f}",
            }
        )
    for row in columns[0]:
        cells = " | ".join(column[row] for column in columns)
        print(f"| {row} | {cells} |")
        if row == "volumes, GPUs":
            print("|---|" + "---:|" * len(columns))


if __name__ == "__main__":
    main()
