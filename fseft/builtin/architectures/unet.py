"""MONAI's U-Net, with a pointwise head of its own where MONAI's ends in a spatial convolution."""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import TYPE_CHECKING, Literal

from fseft.learn.networks.base_architecture import BaseArchitecture
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="unet",
    factory="fseft.builtin.architectures.unet:UNet",
    summary="MONAI's U-Net, plain or residual, with any widths and strides, and a pointwise head",
    reference="Kerfoot et al. 2018, doi:10.1007/978-3-030-12029-0_40",
)


class UNet(BaseArchitecture):
    """Architecture `unet`. The body gives `features` channels at full resolution, the head classifies them."""

    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...] = (16, 32, 64, 128, 256),
        strides: tuple[int, ...] | None = None,
        num_res_units: int = 2,
        norm: Literal["instance", "batch"] = "instance",
        affine: bool = True,
        features: int = 16,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            channels: Width of each level.
            strides: Into each level, the first from the image; one fewer than `channels`. Twos if not given.
            num_res_units: Convolutions in each residual unit; none makes a plain U-Net.
            norm: Kind of the norm layers.
            affine: Whether they have scales and shifts.
            features: Width of the head's input.
        """
        from monai.networks.layers.utils import get_norm_layer
        from monai.networks.nets import UNet as Network
        from torch import nn

        strides = strides or (2,) * (len(channels) - 1)
        self.refuse_deeper(prod(strides))
        norm_layer = (norm, {"affine": affine})
        body = Network(
            3,
            in_channels,
            features,
            channels,
            strides,
            num_res_units=num_res_units,
            norm=norm_layer,
        )
        parts = {
            "body": body,
            "norm": get_norm_layer(norm_layer, 3, features),
            "act": nn.LeakyReLU(0.01),
            "head": nn.Conv3d(features, out_channels, kernel_size=1),
        }
        return nn.Sequential(OrderedDict(parts))

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """The level is the depth of nesting; MONAI numbers its parts: 0 down, 1 the deeper levels, 2 up."""
        level = name.count("submodule")
        nest = network.get_submodule("body.model" + ".1.submodule" * level)
        if not hasattr(getattr(nest, "1", None), "submodule"):
            return "bottleneck", level
        innermost = name.rsplit("submodule.", 1)[-1].removeprefix("body.model.")
        return ("decoder" if innermost.startswith("2.") or name == "norm" else "encoder"), level

    def norm_follows(self, network: nn.Module, name: str) -> bool:
        """A unit keeps its norm beside its convolution; our own comes right after the last one of a plain network."""
        unit = network.get_submodule(name.removesuffix(".conv"))
        return name == "body.model.2.conv" or hasattr(getattr(unit, "adn", None), "N")
