"""A foundation model as a network: its weights, and a head for the structures of a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.networks import backbone
from fseft.learn.networks.heads import new_head
from fseft.learn.networks.roles import TextHeadArchitecture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from fseft.learn.networks.roles import Architecture
    from fseft.model_zoo.catalogue import Weights
    from fseft.schemas import ModelCard


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network with a model's weights, on which heads are put, one instead of the other.

    Attributes:
        card: The model.
        architecture: Knows the network's roles.
        network: With any head.
        head: The model's own; None where there are no weights, and the network's random head stays.
        texts: The model's own that texts drive, if it has one.
        random: Parameters that are random although there are weights.
    """

    card: ModelCard
    architecture: Architecture
    network: nn.Module
    head: nn.Conv3d | None = None
    texts: nn.Module | None = None
    random: list[str] = field(default_factory=list)

    def put_head(
        self,
        structures: Sequence[str],
        *,
        seed: int,
        matched: Mapping[str, str] | None = None,
        unmatched_never: bool = False,
    ) -> None:
        """Put on a head for the structures; the arguments are those of `build_adaptable_network`."""
        import torch

        if self.head is None:
            return
        if (
            unmatched_never
            and self.texts is not None
            and isinstance(self.architecture, TextHeadArchitecture)
        ):
            classes = self.card.classes
            indices = [
                classes.index(matched[name]) if matched and name in matched else None
                for name in structures
            ]
            head = self.architecture.make_text_driven_head(self.network, self.texts, indices)
        else:
            head = new_head(
                self.head,
                structures,
                self.card.classes,
                self.card.activation,
                matched or {},
                torch.Generator().manual_seed(seed),
                suppress_unmatched=unmatched_never,
            )
        self.architecture.replace_head(self.network, head)


def load_backbone(
    card: ModelCard, weights: Weights | None, channels: int, *, structures: int, seed: int
) -> Backbone:
    """A model's network; without weights a random one, with a head for so many structures.

    Raises:
        FseftError: The weights do not fit, or take another number of channels.
    """
    from safetensors.torch import load_file

    architecture = backbone.get_architecture(card.architecture)
    out = output_channels(card) if weights else 1 + structures
    network = backbone.build_network(
        architecture, in_channels=channels, out_channels=out, hparams=card.hparams, seed=seed
    )
    if weights is None:
        return Backbone(card, architecture, network)
    if channels != card.contract.channels:
        raise FseftError(
            f"the model {card.name!r} takes {card.contract.channels} channel(s), the data have {channels}",
            hint="Choose the channel that the model was trained on, or --model none.",
        )
    random = backbone.load_weights(
        network, load_file(weights.path), source=str(weights.path), partial=card.scope != "network"
    )
    texts = (
        architecture.detach_text_head(network)
        if isinstance(architecture, TextHeadArchitecture)
        else None
    )
    old_head = head_names(architecture, network)
    random = [name for name in random if name.rpartition(".")[0] not in old_head]
    return Backbone(card, architecture, network, architecture.head(network), texts, random)


def build_adaptable_network(
    card: ModelCard,
    weights: Weights | None,
    structures: Sequence[str] | Mapping[str, int],
    channels: int,
    *,
    seed: int,
    matched: Mapping[str, str] | None = None,
    unmatched_never: bool = False,
) -> tuple[Architecture, nn.Module, list[str]]:
    """A network with the model's weights and a head for the structures.

    The third result names the parameters that are random although there are weights: these hold an encoder only.

    Args:
        card: The model.
        weights: The model's; random ones without.
        structures: Names, in the order of the rows after the background.
        channels: Input channels of the data.
        seed: Draws what is random.
        matched: Structure -> class whose row is copied.
        unmatched_never: Rows without a match never win (zero-shot).
    """
    body = load_backbone(card, weights, channels, structures=len(structures), seed=seed)
    body.put_head(list(structures), seed=seed, matched=matched, unmatched_never=unmatched_never)
    return body.architecture, body.network, body.random


def output_channels(card: ModelCard) -> int:
    """Of the model's own head: its classes, and a background for softmax; one where the weights hold no head."""
    return len(card.classes) + (card.activation == "softmax") if card.scope == "network" else 1
