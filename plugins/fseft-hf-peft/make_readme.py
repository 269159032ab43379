"""Updates the table of `README.md`, which takes a minute.

python plugins/fseft-hf-peft/make_readme.py
"""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from fseft_hf_peft.tuners import NORM, TUNERS, Tuner

if TYPE_CHECKING:
    from collections.abc import Iterable

README = Path(__file__).with_name("README.md")
TITLE = "| method | trains | layers | merges | note |"


def row(tuner: Tuner) -> str:
    """Returns the row of a tuner, without the measured numbers."""
    layers = "linear, convolution" if "conv.spatial" in tuner.roles else "linear"
    if tuner.roles == NORM:
        layers = "norm"
    merges = "yes" if tuner.merges else "no"
    cells = (f"`{tuner.method}`", tuner.summary, layers, merges, tuner.note)
    return f"| {' | '.join(cells)} |"


def measured(tuners: Iterable[Tuner]) -> dict[str, str]:
    """Returns trained parameters and adapter size by method, on SwinUNETR (feature size 48)."""
    from safetensors.torch import save

    from fseft.learn.adapters.apply import adapt_network
    from fseft.learn.networks.backbone import build_network, get_architecture
    from fseft.registry import registry

    swinunetr = get_architecture("swinunetr")
    base = build_network(swinunetr, in_channels=1, out_channels=1, hparams={}, seed=0)
    cells = {}
    for tuner in tuners:
        method = registry().create("method", tuner.method, registry().method(tuner.method).config())
        adapted = adapt_network(swinunetr, deepcopy(base), method, decoder="frozen", seed=0)
        trained = sum(parameter.numel() for _, parameter in adapted.trainable_parameters())
        cells[tuner.method] = f" {trained:,} | {len(save(adapted.state_dict())) / 1000:,.0f} KB |"
    return cells


def main() -> None:
    """Replaces the table between its title and the next empty line."""
    numbers = measured(TUNERS)
    rows = "\n".join(row(tuner) + numbers[tuner.method] for tuner in TUNERS)
    table = f"{TITLE} trained | adapter |\n|---|---|---|---|---|---:|---:|\n{rows}\n"
    text = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(rf"{re.escape(TITLE)}.*?\n(?=\n|$)", lambda _: table, text, flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()
