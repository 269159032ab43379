"""Writes `methods.md`, the table of all methods, from the registry: `python docs/make_methods.py`."""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save

from fseft.errors import FseftError
from fseft.experiment.settings import split_settings
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.plugin import MethodSpec
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import Architecture

os.environ["FSEFT_NO_PLUGINS"] = (
    "1"  # the page is of the core's methods, whatever is installed here
)

PAGE = Path(__file__).with_name("methods.md")
HEAD = """# Methods

Made by `python docs/make_methods.py`; `fseft show method NAME` has the settings of each.

Trained parameters and adapter files are of SwinUNETR at a feature size of 48 with one output class and a frozen
decoder, 62,186,659 parameters in all: by default, and with `--set preset=reference`, the published recipe of FSEFT.
A method that merges leaves a network of the architecture's own names; one that does not keeps a part of its own in it.

All networks are NETWORKS.

| method | what it does | trained | adapter | trained, reference | networks | merges |
|---|---|---:|---:|---:|---|---|
"""

BESIDE = """
## Decoder and bottleneck

White-box methods train the decoder beside what they put into the encoder (`--decoder fine-tuned`), which is most of an
adapter's size. `--decoder low-rank` trains its norms and low-rank changes of its other weights, `frozen` nothing of it,
`new` starts it from random weights. `--bottleneck` does the same for the deepest level, which is frozen by default.
Of SwinUNETR at a feature size of 48, with `lora`, in half precision (`--half`):

| `--decoder` | trained | adapter |
|---|---:|---:|
"""

QUALITY = """
The low-rank decoder segments nearly as well: after 100 steps from `phantom-tiny` on the real scans of README, by
`benchmarks/real_volumes.py --epochs 20 --methods lora --decoder low-rank`, a Dice of 0.782 on the hippocampus and 0.493
on head and neck, where the tuned one reaches 0.803 and 0.518 with four times the parameters.
"""

DIFFERENCES = """
## Where ours differ from the published recipe

By default, not with `--set preset=reference`:

- `lora` changes queries, keys and values each by matrices of their own, and the feed-forward and convolutional layers
  too. The code of FSEFT has one change of rank 12 with a dense B for all three, and of attention alone.
- `bias` trains the biases of all layers. That of FSEFT trains those of attention and feed-forward layers, and the
  tables of relative positions, which are called biases too (`rel_pos_bias=true`).
- `compacter` starts as the network was (`identity_init=true`). That of FSEFT starts with random mixings, which destroy
  what the pre-trained layers gave.
- Crops are rotated, scaled, and changed in contrast; FSEFT shifts intensities a little (`--set augment=shift`).
- The learning rate warms up, and new rows of the head learn faster than the body, which is trained already.
  `uniform_learning_rate=true` sets the same rate for all parts, whatever `lora_plus_ratio` says.
- On windows of kept features, cross-entropy is added to Dice, which alone may end with background everywhere.
"""

RATES = """
## How much the learning rate and the loss matter

More than the method, with few steps. Dice from `phantom-tiny` on 8 cases that are neither learned from nor in README's
table, k = 5, by `benchmarks/real_volumes.py --validate --unseen 8 --seed 1`; `--set learning_rate=` gives the rate of
the method's own parameters, and raises that of a decoder beside them as much (`arena` as it was without `bound`):

| 100 steps (`--epochs 20`) | rate | hippocampus | head and neck | rate | hippocampus | head and neck |
|---|---:|---:|---:|---:|---:|---:|
| `affine` | 0.01 | 0.739 | 0.430 | 0.03 | 0.782 | 0.609 |
| `ssf` | 0.01 | 0.746 | 0.443 | 0.03 | 0.780 | 0.593 |
| `ia3` | 0.01 | 0.735 | 0.419 | 0.03 | 0.773 | 0.602 |
| `lora` | 0.003 | 0.773 | 0.526 | 0.01 | 0.794 | 0.321 |
| `cnn-adapter` | 0.001 | 0.734 | 0.416 | 0.003 | 0.773 | 0.588 |
| `decoder-only` | 0.001 | 0.726 | 0.402 | 0.003 | 0.765 | 0.508 |
| `full` | 0.001 | 0.777 | 0.496 | 0.003 | 0.805 | 0.497 |
| `arena` | 0.001 | 0.747 | 0.444 | 0.003 | 0.779 | 0.595 |
| `sea` | 0.001 | 0.772 | 0.380 | 0.003 | 0.788 | 0.511 |

The left rates are the defaults. They are lower than what is best here, because a training is longer by default (200
epochs), where high rates lose a structure for good: Dice alone has hardly a gradient where nothing is found.
Cross-entropy keeps it, but takes long to leave the background. Head and neck, seeds 1 and 2, `--set loss=`:

| 500 steps (`--epochs 100`) | rate | `dice` | `dice_ce` |
|---|---:|---:|---:|
| `full` | 0.001 | 0.670, 0.715 | 0.689, 0.696 |
| `full` | 0.003 | 0.554, 0.582 | 0.701, 0.735 |
| `lora` | 0.003 | 0.647, 0.689 | 0.659, 0.697 |

After 100 steps, `full` at 0.003 with `dice_ce` has found nothing but one structure (0.116). So: with a few hundred
steps or more, `--set loss=dice_ce` and three times the rate are worth a try. A larger network may want lower rates:
those of the paper, which are for SwinUNETR, are in `--set preset=reference`.
"""

TIME = """
## What LoRA costs on a convolution

A change of the weight (ours) against a second branch (PEFT), forward and backward on two cores, one crop of 48³ voxels,
32 to 32 channels, rank 8, by `python benchmarks/lora_convolution.py`:

| | against the frozen layer | against the trained layer |
|---|---:|---:|
| `lora` | 1.27 | 0.95 |
| `hf-lora` of plugins/fseft-hf-peft | 1.82 | 1.36 |

The frozen layer computes no gradient of its weight, which a low-rank change goes through. We aimed at 1.15, and missed
it: the arithmetic of the two low-rank gradients alone is a quarter of the frozen layer's at this rank.

## What kept features save

Black-box methods train on features that were computed once (`--set features=cached`, the default) or anew at every step
(`fresh`). Five phantoms, Dice on six unseen ones, seconds of one core, by
`OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/kept_features.py`; the pass comes once for all methods with the same
crops, and took 22 s:

| | kept: training, s | Dice, % | fresh: training, s | Dice, % |
|---|---:|---:|---:|---:|
| `linear-probe` | 8 | 84.69 | 81 | 84.89 |
| `spatial-adapter` | 32 | 85.51 | 137 | 85.93 |
"""


@dataclass(frozen=True)
class Cost:
    """What a method trains and saves, and whether nothing of it is left when it is merged."""

    trained: int
    kilobytes: float
    merges: bool


def page() -> str:
    """The whole page."""
    swinunetr = get_architecture("swinunetr")
    base = build_network(swinunetr, in_channels=1, out_channels=1, hparams={}, seed=0)
    specs = registry().specs("method", MethodSpec)
    rows = "".join(row(spec, swinunetr, base) for spec in specs)
    references = "".join(f"- `{spec.name}`: {spec.reference}\n" for spec in specs if spec.reference)
    head = HEAD.replace("NETWORKS", ", ".join(f"`{name}`" for name in sorted(TINY_NETWORKS)))
    beside = BESIDE + "".join(
        beside_row(how, swinunetr, base) for how in ("frozen", "low-rank", "fine-tuned")
    )
    return f"{head}{rows}{beside}{QUALITY}{DIFFERENCES}{RATES}{TIME}\n## References\n\n{references}"


def beside_row(decoder: str, swinunetr: Architecture, base: nn.Module) -> str:
    """What an adapter of LoRA weighs."""
    spec = registry().method("lora")
    method = registry().create("method", spec.name, spec.config())
    adapted = adapt_network(swinunetr, deepcopy(base), method, decoder=decoder, seed=0)
    trained = sum(p.numel() for _, p in adapted.trainable_parameters())
    tensors = {name: tensor.half() for name, tensor in adapted.state_dict().items()}
    return f"| {decoder} | {trained:,} | {len(save(tensors)) / 1e6:.3g} MB |\n"


def row(spec: MethodSpec, swinunetr: Architecture, base: nn.Module) -> str:
    """One line of the table."""
    here = cost(spec, swinunetr, base, [])
    published = cost(spec, swinunetr, base, ["preset=reference"]) if spec.presets else None
    cells = (
        f"`{spec.name}`",
        spec.summary.removesuffix("; merges exactly"),
        f"{here.trained:,}",
        f"{here.kilobytes:.3g} KB" if here.kilobytes < 1000 else f"{here.kilobytes / 1000:.3g} MB",
        f"{published.trained:,}" if published else "",
        networks(spec),
        "yes" if here.merges else "no",
    )
    return f"| {' | '.join(cells)} |\n"


def cost(spec: MethodSpec, swinunetr: Architecture, base: nn.Module, settings: list[str]) -> Cost:
    """Measured on a copy of the base."""
    config, _ = split_settings(spec, settings)
    method = registry().create("method", spec.name, config)
    adapted = adapt_network(swinunetr, deepcopy(base), method, decoder="frozen", seed=0)
    trained = sum(p.numel() for _, p in adapted.trainable_parameters())
    kilobytes = len(save(adapted.state_dict())) / 1000
    return Cost(trained, kilobytes, adapted.merge().state_dict().keys() == base.state_dict().keys())


def networks(spec: MethodSpec) -> str:
    """Those that the method works on."""
    names = [name for name in sorted(TINY_NETWORKS) if works_on(spec, name)]
    return "all" if len(names) == len(TINY_NETWORKS) else ", ".join(f"`{name}`" for name in names)


def works_on(spec: MethodSpec, name: str) -> bool:
    """Whether the network has what the method needs."""
    chosen = get_architecture(name)
    toy = build_network(
        chosen, in_channels=1, out_channels=1, hparams=TINY_NETWORKS[name].hparams, seed=0
    )
    try:
        registry().create("method", spec.name, spec.config()).select(chosen, toy)
    except FseftError:
        return False
    return True


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
