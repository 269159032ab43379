"""What the universal models share: a head that texts drive, and classes that the file tells by their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.builtin.models.shared.labels import ABDOMENATLAS_25, UNIVERSAL_32
from fseft.errors import FseftError

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.schemas import ModelCard

TEXT_HEAD = ((r"^(?=(organ_embedding|precls_conv|GAP|controller|text_to_vision)\b)", "text_head."),)
"""It lies beside the backbone in public files."""

CLASSES = {len(names): names for names in (UNIVERSAL_32, ABDOMENATLAS_25)}


def card_by_classes(card: ModelCard, file: Path, content: object) -> ModelCard:  # noqa: ARG001 - the content says it
    """The card with the classes of a file, which holds one embedded text for each.

    Raises:
        FseftError: Its classes are not known by their number.
    """
    from fseft.learn.networks.state_dict_mapping import unwrap

    texts = [tensor for name, tensor in unwrap(content).items() if name.endswith("organ_embedding")]
    count = len(texts[0]) if texts else len(card.classes)
    if count not in CLASSES:
        known = " and ".join(map(str, sorted(CLASSES)))
        raise FseftError(
            f"has texts for {count} classes", hint=f"Known are the files of {known} classes."
        )
    hparams = {**card.hparams, "text_classes": count}
    return card.model_copy(update={"classes": CLASSES[count], "hparams": hparams})
