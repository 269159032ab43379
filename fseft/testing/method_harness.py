"""A method on a tiny network, as the subject of checks."""

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
"""Number of output classes of the tiny networks."""
TRAINING = TrainingConfig(epochs=2, learning_rate=0.01, early_stopping=False)


@dataclass(eq=False)
class MethodHarness:
    """A method on a tiny network; the results that several checks need are computed once.

    Attributes:
        name: Name of the method in the registry.
        settings: Settings of the method that differ from the defaults.
        decoder: Treatment of the decoder.
        architecture_name: Name of the architecture in the registry.
        tiny: Hyper-parameters and input shape of the network.
        tolerance: Maximum difference of outputs that need not be equal bit for bit, relative to
            the largest logit if that exceeds 1.
    """

    name: str
    settings: dict[str, Any]
    decoder: PartMode
    architecture_name: str
    tiny: TinyNetwork
    tolerance: float

    @cached_property
    def spec(self) -> MethodSpec:
        """The method's spec."""
        return registry().method(self.name)

    @cached_property
    def config(self) -> Config:
        """The method's configuration."""
        return self.spec.config(**self.settings)

    @cached_property
    def method(self) -> Method:
        """The method."""
        method: Method = registry().create("method", self.name, self.config)
        return method

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture of the network."""
        return get_architecture(self.architecture_name)

    @cached_property
    def x(self) -> Tensor:
        """A random input, (1, 1, i, j, k)."""
        return noise(self.tiny.shape)

    def network(self, classes: int = CLASSES) -> nn.Module:
        """Returns a copy of the base network."""
        return deepcopy(_base(self.architecture_name, self.tiny, classes))

    @cached_property
    def refusal(self) -> str:
        """Message of the method's refusal of this architecture, or an empty string.

        An architecture or method that cannot be created is an error instead.
        """
        method, network = self.method, self.network()
        try:
            method.select(self.architecture, network)
        except FseftError as error:
            return str(error)
        return ""

    @property
    def base_output(self) -> Tensor:
        """The logits of the base network, (1, classes, i, j, k)."""
        return _base_output(self.architecture_name, self.tiny)

    def adapted(self, classes: int = CLASSES) -> AdaptedNetwork:
        """Applies the method to a copy of the base network."""
        return adapt_network(
            self.architecture, self.network(classes), self.method, decoder=self.decoder, seed=1
        )

    @cached_property
    def trained(self) -> AdaptedNetwork:
        """The adapted network after two steps; checks must not change it."""
        adapted = self.adapted()
        if adapted.trainable_parameters():
            adapted.train()
            training = make_training_state(adapted, TRAINING)
            train(training, lambda _: self.loss(adapted.network), TRAINING, steps_per_epoch=1)
        adapted.network.eval()
        return adapted

    @cached_property
    def trained_output(self) -> Tensor:
        """The logits of the trained network, (1, classes, i, j, k)."""
        return self.output(self.trained.network)

    @torch.no_grad()
    def output(self, network: nn.Module) -> Tensor:
        """Returns the logits of a network for the input, (1, classes, i, j, k)."""
        logits: Tensor = network(self.x)
        return logits

    def crops(self, count: int, *, shift: int = 0) -> tuple[Tensor, Tensor]:
        """Returns images (count, C, i, j, k) and labels (count, i, j, k).

        Args:
            count: Number of crops.
            shift: Voxels by which the input is rolled, for other crops.
        """
        rolled = self.x.roll(shift, dims=-1)
        images = rolled.expand(count, *rolled.shape[1:])
        return images, (images[:, 0] > 0).long()

    def loss(self, network: nn.Module, *, shift: int = 0) -> Tensor:
        """Returns a loss, a scalar tensor, to which all parts of the network contribute.

        Args:
            network: The network.
            shift: Voxels by which the input is rolled, for another crop.
        """
        images, labels = self.crops(1, shift=shift)
        dtype = next(network.parameters()).dtype
        return F.cross_entropy(network(images.to(dtype)), labels)

    def backward(self, adapted: AdaptedNetwork) -> dict[str, Tensor | None]:
        """Returns the gradients of the loss by name of the parameter, each of its shape.

        All trained parameters are listed: None for one without a gradient.
        """
        if adapted.trainable_parameters():
            self.loss(adapted.network).backward()  # type: ignore[no-untyped-call]
        return {name: parameter.grad for name, parameter in adapted.trainable_parameters()}

    def assert_close(self, output: Tensor, expected: Tensor) -> None:
        """Asserts that two outputs are equal within the tolerance.

        Args:
            output: A tensor of any shape.
            expected: A tensor of the same shape.
        """
        difference = float((output - expected).abs().max())
        largest = float(expected.abs().max())
        assert difference <= self.tolerance * max(1.0, largest)


def noise(shape: Triple, *, batch: int = 1) -> Tensor:
    """Returns a random input (batch, 1, *shape), always the same.

    Args:
        shape: Voxels (i, j, k).
        batch: Number of images.
    """
    return torch.randn((batch, 1, *shape), generator=torch.Generator().manual_seed(0))


def to_exact_precision(network: nn.Module) -> nn.Module:
    """Converts a network to double precision, with norms that cancel a scale completely."""
    for module in network.double().modules():
        if hasattr(module, "eps"):
            setattr(module, "eps", 1e-24)  # noqa: B010 - `nn.Module` does not declare it
    return network


@lru_cache
def _base(name: str, tiny: TinyNetwork, classes: int) -> nn.Module:
    """Builds the network that all harnesses copy."""
    architecture = get_architecture(name)
    return build_network(
        architecture, in_channels=1, out_channels=classes, hparams=tiny.hparams, seed=0
    ).eval()


@lru_cache
@torch.no_grad()
def _base_output(name: str, tiny: TinyNetwork) -> Tensor:
    logits: Tensor = _base(name, tiny, CLASSES)(noise(tiny.shape))
    return logits
