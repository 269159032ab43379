"""A method on a toy, ready to be checked."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fseft.errors import FseftError
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.learn.training_loop import make_training_state, train
from fseft.registry import registry
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.adapters.method import Method
    from fseft.learn.networks.roles import Architecture
    from fseft.plugin import Config, MethodSpec
    from fseft.schemas import PartMode, Triple
    from fseft.testing.tiny_networks import TinyNetwork

CLASSES = 3
STEPS = TrainingConfig(epochs=2, learning_rate=0.01, early_stopping=False)


@dataclass(eq=False)
class MethodHarness:
    """A method on a toy; what several checks need is made once."""

    name: str
    settings: dict[str, Any]
    decoder: PartMode
    architecture_name: str
    toy: TinyNetwork
    tolerance: float

    @cached_property
    def spec(self) -> MethodSpec:
        """The method's."""
        return registry().method(self.name)

    @cached_property
    def config(self) -> Config:
        """The method's configuration."""
        return self.spec.config(**self.settings)

    @cached_property
    def method(self) -> Method:
        """The method."""
        made: Method = registry().create("method", self.name, self.config)
        return made

    @cached_property
    def architecture(self) -> Architecture:
        """The toy's."""
        return get_architecture(self.architecture_name)

    @cached_property
    def x(self) -> Tensor:
        """An input."""
        return noise(self.toy.shape)

    def network(self, classes: int = CLASSES) -> nn.Module:
        """The base, as it is."""
        return deepcopy(_base(self.architecture_name, self.toy, classes))

    @cached_property
    def refusal(self) -> str:
        """Why the method cannot be used on this architecture; one that cannot be had at all is no such case."""
        method, network = self.method, self.network()
        try:
            method.select(self.architecture, network)
        except FseftError as error:
            return str(error)
        return ""

    @property
    def base_output(self) -> Tensor:
        """Of the base."""
        return _base_output(self.architecture_name, self.toy)

    def adapted(self, classes: int = CLASSES) -> AdaptedNetwork:
        """The method applied to the base, not yet trained."""
        return adapt_network(
            self.architecture, self.network(classes), self.method, decoder=self.decoder, seed=1
        )

    @cached_property
    def trained(self) -> AdaptedNetwork:
        """After two steps; nobody may change it."""
        adapted = self.adapted()
        if adapted.trainable_parameters():
            adapted.train()
            train(
                make_training_state(adapted, STEPS),
                lambda _: self.loss(adapted.network),
                STEPS,
                steps_per_epoch=1,
            )
        adapted.network.eval()
        return adapted

    @cached_property
    def trained_output(self) -> Tensor:
        """After two steps."""
        return self.output(self.trained.network)

    @torch.no_grad()
    def output(self, network: nn.Module) -> Tensor:
        """For the input."""
        logits: Tensor = network(self.x)
        return logits

    def crops(self, count: int, *, shift: int = 0) -> tuple[Tensor, Tensor]:
        """Images (count, C, i, j, k) and labels (count, i, j, k); other ones for another shift."""
        images = self.x.roll(shift, dims=-1).expand(count, *self.x.shape[1:])
        return images, (images[:, 0] > 0).long()

    def loss(self, network: nn.Module, *, shift: int = 0) -> Tensor:
        """A loss on which all of the network can improve; another one for another shift."""
        images, labels = self.crops(1, shift=shift)
        return F.cross_entropy(network(images.to(next(network.parameters()).dtype)), labels)

    def backward(self, adapted: AdaptedNetwork) -> dict[str, Tensor | None]:
        """The gradients of what is trained."""
        if adapted.trainable_parameters():
            self.loss(adapted.network).backward()  # type: ignore[no-untyped-call]
        return {name: p.grad for name, p in adapted.trainable_parameters()}

    def assert_close(self, one: Tensor, other: Tensor) -> None:
        """Equal within the tolerance, of one or of the largest logit."""
        assert float((one - other).abs().max()) <= self.tolerance * max(
            1.0, float(other.abs().max())
        )


def noise(shape: Triple, *, batch: int = 1) -> Tensor:
    """An input."""
    return torch.randn((batch, 1, *shape), generator=torch.Generator().manual_seed(0))


def exact(network: nn.Module) -> nn.Module:
    """Change it to double precision, and its norms to take all of a scale before them away."""
    for module in network.double().modules():
        if hasattr(module, "eps"):
            setattr(module, "eps", 1e-24)  # noqa: B010 - few modules have one
    return network


@lru_cache
def _base(name: str, toy: TinyNetwork, classes: int) -> nn.Module:
    """The network that all subjects copy."""
    network = build_network(
        get_architecture(name), in_channels=1, out_channels=classes, hparams=toy.hparams, seed=0
    )
    return network.eval()


@lru_cache
@torch.no_grad()
def _base_output(name: str, toy: TinyNetwork) -> Tensor:
    logits: Tensor = _base(name, toy, CLASSES)(noise(toy.shape))
    return logits
