"""Initial weights of a pre-training: random, of a model, or of a file such as an encoder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from fseft.anatomy.vocabulary import match_classes
from fseft.errors import FseftError, summarise_exception
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
from fseft.model_zoo.catalogue import DEFAULT_ARCHITECTURE, FoundationModel
from fseft.model_zoo.weights_io import read_weights
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.pretraining.configure import format_setting
from fseft.registry import registry
from fseft.workspace import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.schemas import ModelCard

ANY_PART = CheckpointSpec(file="", covers="$^")
"""A file that may contain any part of the network, under the network's names of tensors."""


@dataclass(frozen=True)
class Initialisation:
    """Network and initial weights.

    Attributes:
        architecture: Name of the network.
        hparams: Hyper-parameters of the network.
        path: File of weights; None for random weights.
        sha256: Digest of that file.
        checkpoint: Names of the tensors in the file.
        card: Card of the model that provides the weights, if it is one of the catalogue.
        allow_pickle: Whether the file may execute code.
    """

    architecture: str
    hparams: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    sha256: str = ""
    checkpoint: CheckpointSpec = ANY_PART
    card: ModelCard | None = None
    allow_pickle: bool = False

    def settings(self) -> dict[str, str]:
        """Network and weights, as settings in words."""
        hparams = [f"{key}={format_setting(value)}" for key, value in sorted(self.hparams.items())]
        return {
            "architecture": self.architecture,
            "network": " ".join(hparams) or "default",
            "init": self.sha256[:12] or "random",
        }


def resolve_initialisation(
    init: FoundationModel | Path | None,
    architecture: str,
    hparams: Mapping[str, Any],
    *,
    allow_pickle: bool,
) -> Initialisation:
    """Finds network and initial weights.

    Args:
        init: A model, or a file of weights; None for random weights.
        architecture: Name of the network; empty for that of `init`.
        hparams: Hyper-parameters, which override those of `init`.
        allow_pickle: Whether the file may execute code.

    Raises:
        FseftError: The file is damaged, or the weights have another architecture.
    """
    if init is None:
        return Initialisation(architecture or DEFAULT_ARCHITECTURE, dict(hparams))
    if isinstance(init, FoundationModel):
        initialisation, name = _from_model(init, hparams), init.name
    else:
        initialisation = _from_file(init, architecture, hparams, allow_pickle=allow_pickle)
        name = str(init)
    if architecture and architecture != initialisation.architecture:
        raise FseftError(
            f"the initial weights {name!r} have the architecture {initialisation.architecture}, "
            f"not {architecture}",
            hint=f"Use the architecture {initialisation.architecture}.",
        )
    return initialisation


def _from_model(model: FoundationModel, hparams: Mapping[str, Any]) -> Initialisation:
    card, weights = model.card, model.weights
    merged = _network_hparams(card) | dict(hparams)
    return Initialisation(card.architecture, merged, weights.path, weights.sha256, card=card)


def _network_hparams(card: ModelCard) -> dict[str, Any]:
    """Hyper-parameters without a text-driven head: the new model has one row per class."""
    return {key: value for key, value in card.hparams.items() if key != TEXT_CLASSES}


def _from_file(
    path: Path, architecture: str, hparams: Mapping[str, Any], *, allow_pickle: bool
) -> Initialisation:
    """Recognises a public checkpoint by its tensors, and reads it as that of the catalogue."""
    tensors = unwrap(read_weights(path, allow_pickle=allow_pickle))
    initialisation = Initialisation(
        architecture or DEFAULT_ARCHITECTURE,
        dict(hparams),
        path,
        file_digest(path),
        allow_pickle=allow_pickle,
    )
    for spec, checkpoint in _matching_models(tensors):
        if architecture in ("", spec.card.architecture):
            return replace(
                initialisation,
                architecture=spec.card.architecture,
                hparams=_network_hparams(spec.card) | dict(hparams),
                checkpoint=replace(checkpoint, covers=ANY_PART.covers),
            )
    return initialisation


def _matching_models(
    tensors: Iterable[str],
) -> list[tuple[FoundationModelSpec, CheckpointSpec]]:
    specs = {
        spec.name: (spec, spec.checkpoint)
        for spec in registry().specs("model", FoundationModelSpec)
        if spec.checkpoint
    }
    checkpoints = {name: checkpoint for name, (_, checkpoint) in specs.items()}
    return [specs[name] for name in matching_checkpoints(tensors, checkpoints)]


def build_initialised_network(
    initialisation: Initialisation, classes: Sequence[str], seed: int
) -> tuple[Architecture, nn.Module, LoadReport | None]:
    """Builds the network with its initial weights.

    Rows of the head are copied for classes that a model of the catalogue knows; the head of a
    file is left out.

    Args:
        initialisation: Network and initial weights.
        classes: Structures, one output each.
        seed: Seed of random weights.

    Returns:
        Architecture, network, and a report on the tensors of the file (None for random weights).

    Raises:
        FseftError: The architecture rejects a hyper-parameter, or no tensor fits the network.
    """
    architecture = backbone.get_architecture(initialisation.architecture)
    network = _build_network(architecture, initialisation, len(classes), seed)
    initialise_to_prior(architecture.head(network))
    if initialisation.path is None:
        return architecture, network, None
    report = _load_weights(architecture, network, initialisation, initialisation.path, classes)
    return architecture, network, report


def _build_network(
    architecture: Architecture, initialisation: Initialisation, num_classes: int, seed: int
) -> nn.Module:
    name, settings = initialisation.architecture, initialisation.settings()["network"]
    try:
        network = backbone.build_network(
            architecture,
            in_channels=1,
            out_channels=num_classes,
            hparams=initialisation.hparams,
            seed=derived_seed(seed, "init"),
        )
    except FseftError:
        raise
    except Exception as error:  # networks raise anything for values that they do not support
        if not initialisation.hparams:
            raise
        cause = f"the architecture {name} cannot be built with {settings}"
        hint = f"`fseft show architecture {name}` lists its hyper-parameters."
        raise FseftError(f"{cause} ({summarise_exception(error)})", hint=hint) from error
    empty = [key for key, parameter in network.named_parameters() if parameter.numel() == 0]
    if empty:
        cause = f"the architecture {name} with {settings} has layers without weights ({empty[0]})"
        raise FseftError(cause, hint="Use widths of at least 1.")
    return network


def _load_weights(
    architecture: Architecture,
    network: nn.Module,
    initialisation: Initialisation,
    path: Path,
    classes: Sequence[str],
) -> LoadReport:
    """Loads the tensors of a file that fit the network, except the head."""
    content = read_weights(path, allow_pickle=initialisation.allow_pickle)
    tensors = unwrap(content, initialisation.checkpoint.unwrap)
    head = head_names(architecture, network)[0]
    state = network.state_dict(keep_vars=True)
    body = {name: state[name] for name in state if not name.startswith(f"{head}.")}
    ignored = (*initialisation.checkpoint.ignored, rf"^{re.escape(head)}\.")
    try:
        matched, report = match_state_dict(
            tensors, replace(initialisation.checkpoint, ignored=ignored), body
        )
    except FseftError as error:
        raise error.located(file=path) from error
    if not report.loaded:
        raise FseftError(
            f"contains no tensor that fits the network {initialisation.architecture}",
            file=path,
            hint="Choose the architecture that the weights were trained with.",
        )
    matched = {name: tensor.to(body[name].dtype) for name, tensor in matched.items()}
    network.load_state_dict(matched, strict=False)
    rows = _copy_rows(architecture.head(network), head, tensors, initialisation.card, classes)
    return report.model_copy(update={"rows": rows, "ignored": {} if rows else report.ignored})


@torch.no_grad()
def _copy_rows(
    head: nn.Conv3d,
    name: str,
    tensors: Mapping[str, Tensor],
    card: ModelCard | None,
    classes: Sequence[str],
) -> tuple[str, ...]:
    """Copies the rows of classes that a sigmoid model has; returns these classes."""
    if card is None or card.activation != "sigmoid" or card.scope != "network":
        return ()
    matched = match_classes(classes, card.classes)
    for structure, model_class in matched.items():
        row, source_row = classes.index(structure), card.classes.index(model_class)
        for kind, parameter in head.named_parameters():
            parameter[row] = tensors[f"{name}.{kind}"][source_row]
    return tuple(matched)
