"""Common parts of the universal models: the text-driven head, and classes by their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.models.shared.labels import ABDOMENATLAS_9, ABDOMENATLAS_25, UNIVERSAL_32
from fseft.errors import FseftError

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.schemas import ModelCard

TEXT_HEAD = ((r"^(?=(organ_embedding|precls_conv|GAP|controller|text_to_vision)\b)", "text_head."),)
"""Renames of the text-driven head, which public files store next to the backbone."""

CLASSES = {len(names): names for names in (UNIVERSAL_32, ABDOMENATLAS_25, ABDOMENATLAS_9)}


def card_by_classes(card: ModelCard, file: Path, content: object) -> ModelCard:
    """Returns the card with the classes of a file, which has one text embedding per class.

    Args:
        card: Card of the model.
        file: Not used.
        content: Content of the file, as PyTorch loads it.

    Raises:
        FseftError: The file has another number of classes than the public ones.
    """
    del file
    from fseft.learn.networks.state_dict_mapping import unwrap

    texts = [tensor for name, tensor in unwrap(content).items() if name.endswith("organ_embedding")]
    count = len(texts[0]) if texts else len(card.classes)
    if count not in CLASSES:
        supported = ", ".join(map(str, sorted(CLASSES)))
        raise FseftError(
            f"has text embeddings for {count} classes",
            hint=f"Files with {supported} classes are supported.",
        )
    hparams = {**card.hparams, "text_classes": count}
    classes = CLASSES[count]
    return card.model_copy(
        update={"classes": classes, "writing_order": classes, "hparams": hparams}
    )
