"""Convolutions that no tiny network contains: a method adapts them correctly, or rejects them."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

from fseft.errors import FseftError
from fseft.learn.networks.backbone import build_network
from fseft.learn.networks.base_architecture import BaseArchitecture, role_by_type
from fseft.plugin import Config
from fseft.testing.method_harness import CLASSES, MethodHarness
from fseft.testing.tiny_networks import TinyNetwork

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fseft.learn.networks.roles import Architecture, PartName, Role
    from fseft.schemas import Triple

WIDTH = 16
CUBE = TinyNetwork({}, (6, 6, 6))

LAYERS: dict[str, Callable[[], nn.Conv3d | nn.ConvTranspose3d]] = {
    "without-bias": partial(nn.Conv3d, WIDTH, WIDTH, 3, padding=1, bias=False),
    "even-kernel": partial(nn.Conv3d, WIDTH, WIDTH, 2),
    "flat-kernel": partial(nn.Conv3d, WIDTH, WIDTH, (3, 3, 1), padding=(1, 1, 0)),
    "unpadded": partial(nn.Conv3d, WIDTH, WIDTH, 3),
    "strided": partial(nn.Conv3d, WIDTH, WIDTH, 3, stride=(2, 2, 1), padding=1),
    "strided-pointwise": partial(nn.Conv3d, WIDTH, WIDTH, 1, stride=2),
    "dilated": partial(nn.Conv3d, WIDTH, WIDTH, 3, padding=2, dilation=2),
    "grouped": partial(nn.Conv3d, WIDTH, 2 * WIDTH, 3, padding=1, groups=2),
    "grouped-pointwise": partial(nn.Conv3d, WIDTH, 2 * WIDTH, 1, groups=2),
    "depthwise": partial(nn.Conv3d, WIDTH, WIDTH, 3, padding=1, groups=WIDTH),
    "reflect-padded": partial(nn.Conv3d, WIDTH, WIDTH, 3, padding=1, padding_mode="reflect"),
    "circular-padded": partial(nn.Conv3d, WIDTH, WIDTH, 3, padding=1, padding_mode="circular"),
    "transposed": partial(nn.ConvTranspose3d, WIDTH, WIDTH, 2, stride=2),
    "transposed-grouped": partial(nn.ConvTranspose3d, WIDTH, 2 * WIDTH, 2, stride=2, groups=2),
    "transposed-overlapping": partial(
        nn.ConvTranspose3d, WIDTH, WIDTH, 3, stride=2, padding=1, output_padding=1
    ),
}
"""Convolution by its unusual property."""


class LayerNet(nn.Module):
    """A network of a pointwise stem, the layer, and a head at the resolution of the input."""

    def __init__(self, layer: nn.Conv3d | nn.ConvTranspose3d, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, WIDTH, 1)
        self.layer = layer
        self.head = nn.Conv3d(layer.out_channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (B, 1, i, j, k) to logits (B, classes, i, j, k)."""
        features = F.relu(self.layer(F.relu(self.stem(x))))
        logits: Tensor = self.head(F.interpolate(features, x.shape[2:]))
        return logits


class LayerConfig(Config):
    """Choice of the layer, a key of `LAYERS`."""

    layer: str


class LayerArchitecture(BaseArchitecture):
    """Architecture of a layer and a head; it is not registered."""

    config_class = LayerConfig
    divisor: Triple = (1, 1, 1)
    minimum_patch: Triple = (4, 4, 4)

    def build(self, *, in_channels: int, out_channels: int, config: LayerConfig) -> nn.Module:
        """Builds the network around the layer of that name."""
        assert in_channels == 1
        return LayerNet(LAYERS[config.layer](), out_channels)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Returns the part that methods adapt first."""
        del network, name
        return "encoder", 0

    def role(self, name: str, module: nn.Module) -> Role | None:
        """Returns the role of the layer; the stem is left out."""
        return role_by_type(module) if name == "layer" else None


class LayerSubject(MethodHarness):
    """A method on a network around one layer, whose name stands for the architecture's."""

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture of one layer and a head."""
        return LayerArchitecture()

    def network(self, classes: int = CLASSES) -> nn.Module:
        """Builds the base network."""
        hparams = {"layer": self.architecture_name}
        return build_network(
            self.architecture, in_channels=1, out_channels=classes, hparams=hparams, seed=0
        ).eval()

    @cached_property
    def refusal(self) -> str:
        """Message of the method's refusal of such a layer, or an empty string."""
        try:
            self.adapted()
        except FseftError as error:
            return str(error)
        return ""
