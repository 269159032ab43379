"""Architecture `unet`: MONAI's U-Net, a norm and an activation if wanted, and a pointwise head."""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fseft.lazy_imports import import_lazily
from fseft.learn.networks.base_architecture import BaseArchitecture
from fseft.plugin import ArchitectureSpec, Config

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple


class UNetConfig(Config):
    """Hyper-parameters of `unet`."""

    channels: tuple[int, ...] = Field(
        default=(16, 32, 64, 128, 256), description="width of each level, the finest first"
    )
    strides: tuple[int, ...] | None = Field(
        default=None,
        description="stride into each level, the first from the image; one fewer than `channels`; "
        "default: twos",
    )
    num_res_units: int = Field(
        default=2, ge=0, description="convolutions per residual unit; 0: a plain U-Net"
    )
    norm: Literal["instance", "batch"] = Field(
        default="instance", description="normalisation layers"
    )
    affine: bool = Field(default=True, description="train scales and shifts in the norm layers")
    features: int = Field(default=16, ge=1, description="width of the head's input")
    head_norm: bool = Field(
        default=True, description="normalise the head's input, followed by an activation"
    )


SPEC = ArchitectureSpec(
    name="unet",
    factory="fseft.builtin.architectures.unet:UNet",
    summary="MONAI's U-Net, plain or residual, with any widths and strides, and a pointwise head",
    config=UNetConfig,
    reference="Kerfoot et al. 2018, doi:10.1007/978-3-030-12029-0_40",
)


class UNet(BaseArchitecture):
    """Architecture `unet`: a U-Net with `features` output channels, and a pointwise classifier.

    MONAI's U-Net ends in a spatial convolution, so the classifier is a layer after it.
    """

    config_class = UNetConfig
    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)

    def build(self, *, in_channels: int, out_channels: int, config: UNetConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        import_lazily("monai")
        from monai.networks.layers.utils import get_norm_layer
        from monai.networks.nets import UNet as Network
        from torch import nn

        strides = config.strides or (2,) * (len(config.channels) - 1)
        self.require_divisible(prod(strides))
        norm = (config.norm, {"affine": config.affine})
        body = Network(
            3,
            in_channels,
            config.features,
            config.channels,
            strides,
            num_res_units=config.num_res_units,
            norm=norm,
        )
        parts: OrderedDict[str, nn.Module] = OrderedDict(body=body)
        if config.head_norm:
            parts["norm"] = get_norm_layer(norm, 3, config.features)
            parts["act"] = nn.LeakyReLU(0.01)
        parts["head"] = nn.Conv3d(config.features, out_channels, kernel_size=1)
        return nn.Sequential(parts)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Returns the nesting depth as the level; MONAI numbers 0 down, 1 deeper levels, 2 up."""
        level = name.count("submodule")
        nested = network.get_submodule("body.model" + ".1.submodule" * level)
        if not hasattr(getattr(nested, "1", None), "submodule"):
            return "bottleneck", level
        innermost = name.rsplit("submodule.", 1)[-1].removeprefix("body.model.")
        return ("decoder" if innermost.startswith("2.") or name == "norm" else "encoder"), level

    def followed_by_norm(self, network: nn.Module, name: str) -> bool:
        """Looks for a norm in the convolution's unit; `norm` follows the last unit if plain."""
        unit = network.get_submodule(name.removesuffix(".conv"))
        if name == "body.model.2.conv":
            return hasattr(network, "norm")
        return hasattr(getattr(unit, "adn", None), "N")
