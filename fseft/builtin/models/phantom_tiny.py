"""`phantom-tiny`: the embedded model, pre-trained on partially labelled phantoms."""

from __future__ import annotations

from pathlib import Path

from fseft.plugin import FoundationModelSpec
from fseft.schemas import ModelCard

FOLDER = Path(__file__).parents[1] / "phantom" / "weights"


def weights() -> Path:
    """Returns the path of the embedded safetensors file."""
    return FOLDER / "weights.safetensors"


_STORED = ModelCard.model_validate_json((FOLDER / "model.json").read_bytes())
# `fseft pretrain` refuses the names of listed models, so the stored card has another name.
CARD = _STORED.model_copy(update={"name": "phantom-tiny", "shareable": True})
SPEC = FoundationModelSpec(
    name=CARD.name,
    factory="fseft.builtin.models.phantom_tiny:weights",
    summary="2.8 M parameters, trained on phantoms: for the demo, tests and first trials on a CPU",
    card=CARD,
    recommended_for="first trials on a CPU, in CT and MR; nothing to download",
)
