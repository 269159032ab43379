"""LoRA on a convolution, relative to the frozen layer and to Hugging Face PEFT, as JSON.

Run: `python benchmarks/lora_convolution.py [--rank 8] [--repeats 15]`; needs
plugins/fseft-hf-peft. One crop of 48^3, a 3x3x3 convolution of 32 to 32 channels, in the memory
format of `fseft`. Each repeat times every layer once, alternately; medians are compared.

- `frozen`: the input needs a gradient, the weight does not.
- `trainable`: the same layer with a trained weight.
- `ours`: a low-rank update of the frozen weight; its gradient passes through the weight's.
- `peft`: PEFT's layer, a parallel branch of two convolutions.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from statistics import median

import torch
from torch import Generator, Tensor, nn

from fseft.learn.adapters.adapter_layers import LowRank, add_delta
from fseft.learn.networks.roles import Target
from fseft.learn.training.memory_format import to_device
from fseft_hf_peft.library import peft

CHANNELS, SIDE = 32, 48
SCALE = 2.0


def layers(rank: int, channels: int = CHANNELS) -> dict[str, nn.Module]:
    """Returns the layers to compare; all start as the same function."""
    torch.manual_seed(0)
    trainable = nn.Conv3d(channels, channels, 3, padding=1)
    frozen = deepcopy(trainable).requires_grad_(False)
    ours = deepcopy(frozen)
    change = LowRank(ours.weight, rank, SCALE, Generator().manual_seed(0))
    add_delta(Target("0", ours, "encoder", 0, "conv.spatial"), change)
    config = peft.LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=["0"])
    theirs = peft.inject_adapter_in_model(config, nn.Sequential(deepcopy(frozen)))
    made = {"frozen": frozen, "trainable": trainable, "ours": ours, "peft": theirs}
    return {name: to_device(layer, "cpu") for name, layer in made.items()}


def seconds(layer: nn.Module, x: Tensor, gradient: Tensor) -> float:
    """Returns the seconds of a forward and a backward pass."""
    x.grad = None
    layer.zero_grad(set_to_none=True)
    began = time.perf_counter()
    layer(x).backward(gradient)
    return time.perf_counter() - began


def measure(rank: int, repeats: int) -> dict[str, float | int]:
    """Returns medians in seconds, and their ratios."""
    compared = layers(rank)
    x, gradient = torch.randn(2, 1, CHANNELS, SIDE, SIDE, SIDE)
    x.requires_grad_()
    runs = [
        {name: seconds(layer, x, gradient) for name, layer in compared.items()}
        for _ in range(1 + repeats)
    ]
    medians = {
        name: median(run[name] for run in runs[1:]) for name in compared
    }  # the first one warms up
    pairs = [(one, other) for one in ("ours", "peft") for other in ("frozen", "trainable")] + [
        ("peft", "ours")
    ]
    return {
        "threads": torch.get_num_threads(),
        "rank": rank,
        **{f"{name}_seconds": round(value, 4) for name, value in medians.items()},
        **{f"{one}/{other}": round(medians[one] / medians[other], 2) for one, other in pairs},
    }


def main() -> None:
    """Parses options, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.rank, arguments.repeats), indent=2))


if __name__ == "__main__":
    main()
