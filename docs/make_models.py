"""Writes `models.md`, the table of all foundation models, from the registry: `python docs/make_models.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["FSEFT_NO_PLUGINS"] = "1"  # the page tells of what comes with fseft

from fseft.plugin import FoundationModelSpec
from fseft.registry import registry

if TYPE_CHECKING:
    from fseft.schemas import ModelCard

PAGE = Path(__file__).with_name("models.md")
HEAD = """# Foundation models

Made by `python docs/make_models.py`. `fseft models` lists them with those of your workspace, `fseft models show NAME`
has the classes and the preprocessing contract of each.

The weights of public models stay with their owners. `fseft models pull NAME` downloads them (resumed where it was cut
off, the same file every time), `fseft models import NAME FILE` takes a file that you have. Either converts it once into
safetensors below `FSEFT_MODELS` (by default `~/.cache/fseft/models`): a file is known by its content, every tensor must
find its place, and no code in it is run unless you say `--trust`. `fseft models verify NAME` checks later that the
weights are the same and that the libraries still compute the same from them.

*Here* are: *all* of the network; its *body* and a head that is driven by texts, which serves `zero-shot` but gives no
rows to start others from (or none, where the classes have no names); or the *encoder* alone, whose decoder starts
from random weights, so that black-box methods are refused.

Models of nnU-Net (TotalSegmentator, STU-Net, nnssl and any of your own) come with
[plugins/fseft-nnunet](../plugins/fseft-nnunet/README.md).
No weights could be tried where this page was made: the loaders are tested on files of the same containers, names and
shapes with random numbers.

| model | what | network | parameters | here | classes | licence of the weights | what becomes of them may be shared |
|---|---|---|---:|---|---:|---|---|
"""
SHARED = {True: "yes", False: "no", None: "unclear"}
SCOPE = {"network": "all", "body": "body", "encoder": "encoder"}


def page() -> str:
    """The whole page."""
    specs = registry().specs("model", FoundationModelSpec)
    rows = "".join(row(spec.card) for spec in specs)
    return f"{HEAD}{rows}\n## Where they come from\n\n{''.join(source(spec) for spec in specs)}"


def row(card: ModelCard) -> str:
    """One line of the table."""
    cells = (
        f"`{card.name}`",
        card.summary,
        f"`{card.architecture}`",
        f"{card.parameters / 1e6:.1f} M" if card.parameters else "",
        SCOPE[card.scope],
        str(len(card.classes) or ""),
        card.licence,
        SHARED[card.shareable],
    )
    return f"| {' | '.join(cells)} |\n"


def source(spec: FoundationModelSpec) -> str:
    """One entry of the list below the table."""
    card = spec.card
    where = f"`{spec.checkpoint.file}` at {card.home}" if spec.checkpoint else "comes with `fseft`"
    how = "; by hand" if spec.checkpoint and not spec.checkpoint.url else ""
    data = f" Pre-trained on {', '.join(card.datasets)}." if card.datasets else ""
    reference = f" {card.reference}." if card.reference else ""
    return f"- `{card.name}`: {where}{how}.{data}{reference}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
