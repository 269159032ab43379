"""`phantom-tiny`: the embedded model, pre-trained by `fseft pretrain` on partially labelled phantoms."""

from __future__ import annotations

from pathlib import Path

from fseft.plugin import FoundationModelSpec
from fseft.schemas import ModelCard

FOLDER = Path(__file__).parents[1] / "phantom" / "weights"


def weights() -> Path:
    """The embedded safetensors file."""
    return FOLDER / "weights.safetensors"


_MADE = ModelCard.model_validate_json((FOLDER / "model.json").read_bytes())
# Whoever trains a model may not hide one of the list, and its owners, those of this package, share it.
CARD = _MADE.model_copy(update={"name": "phantom-tiny", "shareable": True})
SPEC = FoundationModelSpec(
    name=CARD.name,
    factory="fseft.builtin.models.phantom_tiny:weights",
    summary="2.8 M parameters, made from phantoms: for the demo, for tests and for a first try on a CPU",
    card=CARD,
)
