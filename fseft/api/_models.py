"""Lists methods and models, and load models as networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.api._resolve import as_model, as_workspace
from fseft.model_zoo.catalogue import model_names
from fseft.registry import registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from fseft.api._resolve import ModelLike, WorkspaceLike


def list_methods() -> list[str]:
    """Lists the names of the adaptation methods, those of plugins included.

    Examples:
        >>> "lora" in list_methods()
        True
    """
    return list(registry().registrations("method"))


def list_models(workspace: WorkspaceLike = ".") -> list[str]:
    """Lists the foundation models of plugins, downloaded or not, and of the workspace.

    Args:
        workspace: Folder with the models of the user.

    Examples:
        >>> "phantom-tiny" in list_models()
        True
    """
    return model_names(as_workspace(workspace))


def load_model(
    model: ModelLike,
    structures: Sequence[str] = (),
    *,
    channels: int | None = None,
    seed: int = 0,
    workspace: WorkspaceLike = ".",
) -> nn.Module:
    """Loads a foundation model as a network, in evaluation mode on the CPU.

    Args:
        model: Name of a foundation model; "none" for random weights.
        structures: Structures of a new head. Rows of classes with the same meaning are copied from
            the model's head, all others are random. Empty for the classes of the model.
        channels: Number of input channels; None for those of the model.
        seed: Seed of random weights.
        workspace: Folder with the models of the user.

    Returns:
        A network that maps images (B, channels, i, j, k) in float32, preprocessed as the card of
        the model describes, to logits (B, 1 + structures, i, j, k), the background first.

    Raises:
        FseftError: The model is unknown, its weights are missing, or structures are required, as
            the model has no classes.

    Examples:
        >>> network = load_model("phantom-tiny", ["liver", "spleen"])  # doctest: +SKIP
    """
    from fseft.anatomy.vocabulary import match_classes
    from fseft.errors import FseftError
    from fseft.model_zoo.loading import build_adaptable_network

    entry = as_model(model, as_workspace(workspace))
    names = list(structures or entry.card.classes)
    if not names:
        raise FseftError(
            f"the model {entry.name!r} has no classes", hint="Pass the structures to segment."
        )
    classes = entry.card.classes if entry.pretrained and entry.card.scope == "network" else ()
    matched = (
        match_classes(names, classes, {}, {}) if structures else {name: name for name in classes}
    )
    _, network, _ = build_adaptable_network(
        entry.card,
        entry.weights() if entry.pretrained else None,
        names,
        channels or entry.card.contract.channels,
        seed=seed,
        matched=matched,
        suppress_unmatched=not structures,
    )
    return network.eval()
