"""What a pre-training starts from: random weights, a model of the list, or the file of a self-supervised encoder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fseft.anatomy.vocabulary import match_classes
from fseft.errors import FseftError, did_you_mean, summarise_exception
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.networks import backbone
from fseft.learn.networks.heads import initialise_to_prior
from fseft.learn.networks.roles import TEXT_CLASSES
from fseft.learn.networks.state_dict_mapping import (
    LoadReport,
    match_state_dict,
    matching_checkpoints,
    unwrap,
)
from fseft.learn.training.prefetch import derived_seed
from fseft.model_zoo.catalogue import (
    DEFAULT_ARCHITECTURE,
    find_model_card,
    find_weights,
    model_names,
)
from fseft.model_zoo.weights_io import read_weights
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.pretraining.configure import in_words
from fseft.registry import registry
from fseft.workspace import file_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.schemas import ModelCard
    from fseft.workspace import Workspace

ANY_PART = CheckpointSpec(file="", covers="$^")
"""A file that may hold any part of the network, under its names."""


@dataclass(frozen=True)
class Initialisation:
    """Network and weights to begin with.

    Attributes:
        architecture: Of the network.
        hparams: Of the network.
        path: Of the weights; None for random ones.
        sha256: Of that file.
        checkpoint: How it names its tensors.
        card: Of the model that is started from, if it is one of the list.
        trust: Let the file run code of its own.
    """

    architecture: str
    hparams: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    sha256: str = ""
    checkpoint: CheckpointSpec = ANY_PART
    card: ModelCard | None = None
    trust: bool = False

    def settings(self) -> dict[str, str]:
        """What it is, in words."""
        network = " ".join(
            f"{key}={in_words(value)}" for key, value in sorted(self.hparams.items())
        )
        return {
            "architecture": self.architecture,
            "network": network or "default",
            "init": self.sha256[:12] or "random",
        }


def resolve_initialisation(
    init: str, architecture: str, hparams: Mapping[str, Any], store: Workspace, *, trust: bool
) -> Initialisation:
    """Decide what to start from.

    Args:
        init: A model's name, or a file; empty for random weights.
        architecture: Empty: that of `init`.
        hparams: Go before those of `init`.
        store: Knows the models of the workspace.
        trust: Let the file run code of its own.

    Raises:
        FseftError: It is neither model nor file, or of another architecture.
    """
    if not init:
        return Initialisation(architecture or DEFAULT_ARCHITECTURE, dict(hparams))
    if init in model_names(store):
        card, weights = find_model_card(init, store), find_weights(init, store)
        start = Initialisation(
            card.architecture, _body(card) | dict(hparams), weights.path, weights.sha256, card=card
        )
    elif Path(init).is_file():
        start = _of_file(Path(init), architecture, hparams, trust=trust)
    else:
        raise FseftError(
            f"--init {init}: is neither a file nor a model",
            hint=did_you_mean(init, model_names(store)),
        )
    if architecture and architecture != start.architecture:
        raise FseftError(
            f"--init {init}: is of the architecture {start.architecture}, not {architecture}",
            hint=f"Use --architecture {start.architecture}.",
        )
    return start


def _body(card: ModelCard) -> dict[str, Any]:
    """The hyperparameters, but for a head that texts drive: the new model learns rows for classes of its own."""
    return {key: value for key, value in card.hparams.items() if key != TEXT_CLASSES}


def _of_file(
    path: Path, architecture: str, hparams: Mapping[str, Any], *, trust: bool
) -> Initialisation:
    """A public file is known by its content, and then read as the model of the list would be."""
    sha256, names = file_digest(path), unwrap(read_weights(path, trust=trust))
    specs = {
        spec.name: spec
        for spec in registry().specs("model", FoundationModelSpec)
        if spec.checkpoint
    }
    for name in matching_checkpoints(
        names, {name: spec.checkpoint for name, spec in specs.items() if spec.checkpoint}
    ):
        card, checkpoint = specs[name].card, specs[name].checkpoint
        if checkpoint and architecture in ("", card.architecture):
            anyhow = replace(checkpoint, covers=ANY_PART.covers)
            return Initialisation(
                card.architecture, _body(card) | dict(hparams), path, sha256, anyhow, trust=trust
            )
    return Initialisation(
        architecture or DEFAULT_ARCHITECTURE, dict(hparams), path, sha256, trust=trust
    )


def build_initialised_network(
    start: Initialisation, classes: Sequence[str], seed: int
) -> tuple[Architecture, nn.Module, LoadReport | None]:
    """The network with its first weights, and what became of the file's tensors.

    Rows of the head are copied for classes that a model of the list knows; the head of a file is left out.

    Raises:
        FseftError: The architecture refuses a hyperparameter, or nothing in the file fits the network.
    """
    architecture = backbone.get_architecture(start.architecture)
    keys = f"`fseft show architecture {start.architecture}` lists the keys of --set."
    try:
        network = backbone.build_network(
            architecture,
            in_channels=1,
            out_channels=len(classes),
            hparams=start.hparams,
            seed=derived_seed(seed, "init"),
        )
    except FseftError:
        raise
    except Exception as error:  # networks raise anything for a hyperparameter that they refuse
        if not start.hparams:
            raise
        settings = start.settings()["network"]
        cause = f"the architecture {start.architecture} cannot be built with {settings}"
        raise FseftError(f"{cause} ({summarise_exception(error)})", hint=keys) from error
    if empty := [name for name, parameter in network.named_parameters() if parameter.numel() == 0]:
        raise FseftError(
            f"the architecture {start.architecture} with {start.settings()['network']} has layers without weights "
            f"({empty[0]})",
            hint="Give widths of one or more.",
        )
    initialise_to_prior(architecture.head(network))
    if start.path is None:
        return architecture, network, None
    tensors = unwrap(read_weights(start.path, trust=start.trust), start.checkpoint.unwrap)
    head = head_names(architecture, network)[0]
    state = network.state_dict(keep_vars=True)
    body = {name: tensor for name, tensor in state.items() if not name.startswith(f"{head}.")}
    without_head = replace(
        start.checkpoint, ignored=(*start.checkpoint.ignored, rf"^{re.escape(head)}\.")
    )
    try:
        chosen, report = match_state_dict(tensors, without_head, body)
    except FseftError as error:
        raise error.located(file=start.path) from error
    if not report.loaded:
        raise FseftError(
            f"holds nothing that fits the network {start.architecture}",
            file=start.path,
            hint="Give the --architecture that it was made with.",
        )
    network.load_state_dict(
        {name: tensor.to(body[name].dtype) for name, tensor in chosen.items()}, strict=False
    )
    copied = _copy_rows(architecture.head(network), head, tensors, start.card, classes)
    ignored = {} if copied else report.ignored
    return architecture, network, report.model_copy(update={"rows": copied, "ignored": ignored})


@torch.no_grad()
def _copy_rows(
    head: nn.Conv3d,
    name: str,
    tensors: Mapping[str, Tensor],
    card: ModelCard | None,
    classes: Sequence[str],
) -> tuple[str, ...]:
    """Where a sigmoid model knows a class, its row goes on to be learned; gives these classes."""
    if card is None or card.activation != "sigmoid" or card.scope != "network":
        return ()
    matched = match_classes(classes, card.classes)
    for own, known in matched.items():
        row, old = list(classes).index(own), card.classes.index(known)
        for kind, parameter in head.named_parameters():
            parameter[row] = tensors[f"{name}.{kind}"][old]
    return tuple(matched)
