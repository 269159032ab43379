"""Foundation models as networks: pre-trained weights, and a head for given structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.networks import backbone
from fseft.learn.networks.heads import new_head
from fseft.learn.networks.roles import TextHeadArchitecture
from fseft.learn.networks.stem import find_stem, repeat_stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from fseft.learn.networks.roles import Architecture
    from fseft.model_zoo.catalogue import Weights
    from fseft.schemas import ModelCard


@dataclass(frozen=True, eq=False)
class Backbone:
    """Network with the weights of a model, whose head can be replaced.

    Attributes:
        card: Card of the model.
        architecture: Architecture of the network.
        network: The network with its current head.
        head: Head of the model; None for random weights, whose random head is kept.
        text_head: Text-driven head of the model, if it has one.
        missing_keys: Parameters without pre-trained values, which every method trains: those that
            the weights do not include, such as a decoder's, and a first layer that was repeated
            over channels.
    """

    card: ModelCard
    architecture: Architecture
    network: nn.Module
    head: nn.Conv3d | None = None
    text_head: nn.Module | None = None
    missing_keys: list[str] = field(default_factory=list)

    def put_head(
        self,
        structures: Sequence[str],
        *,
        seed: int,
        matched: Mapping[str, str] | None = None,
        suppress_unmatched: bool = False,
    ) -> None:
        """Replaces the head by one for the structures; random weights keep their head.

        Args:
            structures: Names of the structures, in the order of the outputs after the background.
            seed: Seed of the rows without a match.
            matched: Structure -> class of the model whose row of the head is copied.
            suppress_unmatched: Whether structures without a match are never predicted (zero-shot).
        """
        import torch

        if self.head is None:
            return
        if (
            suppress_unmatched
            and self.text_head is not None
            and isinstance(self.architecture, TextHeadArchitecture)
        ):
            classes = self.card.classes
            indices = [
                classes.index(matched[name]) if matched and name in matched else None
                for name in structures
            ]
            head = self.architecture.make_text_driven_head(self.network, self.text_head, indices)
        else:
            head = new_head(
                self.head,
                structures,
                self.card.classes,
                self.card.activation,
                matched or {},
                torch.Generator().manual_seed(seed),
                suppress_unmatched=suppress_unmatched,
            )
        self.architecture.replace_head(self.network, head)


def load_backbone(
    card: ModelCard, weights: Weights | None, channels: int, *, structures: int, seed: int
) -> Backbone:
    """Loads the network of a model.

    Args:
        card: Card of the model.
        weights: Weights of the model; None for random weights.
        channels: Input channels of the network; the first layer of a model with one channel is
            repeated over several.
        structures: Number of structures of a random head.
        seed: Seed of random weights.

    Raises:
        FseftError: The weights do not fit the network, or need another number of channels.
    """
    from safetensors.torch import load_file

    architecture = backbone.get_architecture(card.architecture)
    out = output_channels(card) if weights else 1 + structures
    network = backbone.build_network(
        architecture, in_channels=channels, out_channels=out, hparams=card.hparams, seed=seed
    )
    if weights is None:
        return Backbone(card, architecture, network)
    tensors, stem = load_file(weights.path), _stem(card, channels)
    if stem:
        tensors = repeat_stem(tensors, stem, channels)
    missing_keys = backbone.load_weights(
        network, tensors, source=str(weights.path), partial=card.scope != "network"
    )
    missing_keys += [name for name in stem if name not in missing_keys]
    text_head = None
    if isinstance(architecture, TextHeadArchitecture):
        text_head = architecture.detach_text_head(network)
    heads = head_names(architecture, network)  # which are replaced
    missing_keys = [name for name in missing_keys if name.rpartition(".")[0] not in heads]
    head = architecture.head(network)
    return Backbone(card, architecture, network, head, text_head, missing_keys)


def _stem(card: ModelCard, channels: int) -> tuple[str, ...]:
    """Returns the weights of the first layer, if it has to be repeated over channels."""
    expected = card.contract.channels
    if channels == expected:
        return ()
    if expected > 1:
        raise FseftError(
            f"the model {card.name!r} takes {expected} channels, the data have {channels}",
            hint="Choose the channels that the model was trained on, or the model none.",
        )
    return find_stem(card.architecture, card.hparams, channels)


def build_adaptable_network(
    card: ModelCard,
    weights: Weights | None,
    structures: Sequence[str] | Mapping[str, int],
    channels: int,
    *,
    seed: int,
    matched: Mapping[str, str] | None = None,
    suppress_unmatched: bool = False,
) -> tuple[Architecture, nn.Module, list[str]]:
    """Builds a network with the weights of a model and a head for the structures.

    Args:
        card: Card of the model.
        weights: Weights of the model; None for random weights.
        structures: Names of the structures, in the order of the outputs after the background.
        channels: Input channels of the network.
        seed: Seed of random weights.
        matched: Structure -> class of the model whose row of the head is copied.
        suppress_unmatched: Whether structures without a match are never predicted (zero-shot).

    Returns:
        Architecture, network, and the parameters without pre-trained values.
    """
    model = load_backbone(card, weights, channels, structures=len(structures), seed=seed)
    model.put_head(
        list(structures), seed=seed, matched=matched, suppress_unmatched=suppress_unmatched
    )
    return model.architecture, model.network, model.missing_keys


def writing_order(
    card: ModelCard, structures: Iterable[str], matched: Mapping[str, str]
) -> tuple[str, ...]:
    """Returns structures in the order in which the owner of a model writes their classes.

    Args:
        card: Card of the model.
        structures: Names of the structures.
        matched: Structure -> class of the model.

    Returns:
        All structures, those without a class first; empty if the card states no order.
    """
    if not card.writing_order:
        return ()
    positions = {name: card.writing_order.index(matched[name]) for name in matched}
    return tuple(sorted(structures, key=lambda name: positions.get(name, -1)))


def output_channels(card: ModelCard) -> int:
    """Number of outputs of a model's head.

    Args:
        card: Card of the model.

    Returns:
        The classes, and the background for softmax; 1 if the weights include no head.
    """
    if card.scope != "network":
        return 1
    return len(card.classes) + (card.activation == "softmax")
