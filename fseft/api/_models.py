"""Lists and installs foundation models, and loads them as networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fseft.api._resolve import as_model, as_workspace
from fseft.model_zoo.catalogue import FoundationModel, model_names, registered_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from fseft.api._resolve import ModelLike, WorkspaceLike
    from fseft.experiment.callbacks import Callbacks
    from fseft.model_zoo.conversion import ImportedModel, VerifiedModel


def list_models(workspace: WorkspaceLike = ".") -> list[str]:
    """Lists the foundation models of plugins, downloaded or not, and of the workspace.

    Args:
        workspace: Folder with the models of the user.

    Examples:
        >>> "phantom-tiny" in list_models()
        True
    """
    return model_names(as_workspace(workspace))


def get_model(model: ModelLike, workspace: WorkspaceLike = ".") -> FoundationModel:
    """Looks up a foundation model; its weights are not read.

    Args:
        model: Name of a foundation model; "none" stands for random weights.
        workspace: Folder with the models of the user.

    Raises:
        FseftError: The model is unknown (with the nearest names), or its card is damaged.

    Examples:
        >>> get_model("phantom-tiny").card.activation
        'sigmoid'
    """
    return as_model(model, as_workspace(workspace))


def import_model(
    model: str,
    file: str | Path,
    workspace: WorkspaceLike = ".",
    *,
    name: str = "",
    allow_pickle: bool = False,
    weights: str = "",
    orientation: str = "",
    like: str | Path | None = None,
) -> ImportedModel:
    """Converts the public checkpoint of a model, and stores it in the model cache of the user.

    Args:
        model: Name of a model of a plugin.
        file: Its public checkpoint, as its owner provides it.
        workspace: Folder with the models of the user.
        name: Name under which the model is stored in the workspace instead; empty for the cache.
        allow_pickle: Allow the file to execute code; only if you trust its source.
        weights: Name of the set of weights, in a file with several, such as "ema".
        orientation: Axes x, y, z of the scans that the model was trained on, such as "LPS", if the
            file does not contain them.
        like: One of these scans, from which the axes are read instead.

    Returns:
        The card of the model, a report on the tensors of the file, and the folder.

    Raises:
        FseftError: The file is incomplete or belongs to another model, or the name is taken.
    """
    from fseft.model_zoo import conversion
    from fseft.model_zoo.import_options import ImportOptions

    place = as_workspace(workspace)
    public = conversion.public_model(registered_model(model, place))
    options = ImportOptions(
        allow_pickle=allow_pickle,
        weights=weights,
        orientation=orientation,
        like=Path(like) if like else None,
    )
    return conversion.import_model(public, Path(file), place, options, save_as=name)


def pull_model(
    model: str,
    workspace: WorkspaceLike = ".",
    *,
    accept_licence: bool = False,
    callbacks: Callbacks | None = None,
) -> ImportedModel:
    """Downloads the public checkpoint of a model from its owner, and imports it.

    An interrupted download continues, and an imported model is not downloaded again.

    Args:
        model: Name of a model of a plugin.
        workspace: Folder with the models of the user, for errors about an unknown name.
        accept_licence: Whether you have read and accept a licence that is not open.
        callbacks: Observe the download.

    Returns:
        As for `import_model`.

    Raises:
        FseftError: The licence is not accepted, the download fails, or the file is not the expected
            one.
    """
    from fseft.model_zoo import conversion, download

    public = conversion.public_model(registered_model(model, as_workspace(workspace)))
    return download.pull_model(public, accept_licence=accept_licence, callbacks=callbacks)


def verify_model(model: ModelLike, workspace: WorkspaceLike = ".") -> VerifiedModel:
    """Verifies the weights of a model, and the output of its network for a fixed input.

    Args:
        model: Name of a foundation model.
        workspace: Folder with the models of the user.

    Returns:
        The card of the model, and the report on the tensors of its public file, if any.

    Raises:
        FseftError: The file has changed, or the installed libraries compute another output.
    """
    from fseft.model_zoo import conversion

    return conversion.verify_model(as_model(model, as_workspace(workspace)))


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
        entry.weights if entry.pretrained else None,
        names,
        channels or entry.card.contract.channels,
        seed=seed,
        matched=matched,
        suppress_unmatched=not structures,
    )
    return network.eval()
