"""Architecture `meshnet`: dilated convolutions at full resolution, and a pointwise classifier."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn

from fseft.learn.networks.base_architecture import BaseArchitecture, level_of, module_count
from fseft_brainchop.config import MeshNetConfig

if TYPE_CHECKING:
    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU, "gelu": nn.GELU}


class MeshNet(BaseArchitecture):
    """Architecture `meshnet`.

    Fedorov et al. 2017, arXiv:1612.00940. All layers have the resolution of the image, so that
    every input size is accepted. The layers before the middle one count as encoder, the middle one
    as bottleneck, and the others as decoder.
    """

    config_class = MeshNetConfig
    divisor: Triple = (1, 1, 1)
    minimum_patch: Triple = (16, 16, 16)
    head_pattern = "head"

    def build(self, *, in_channels: int, out_channels: int, config: MeshNetConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        layers = []
        width = in_channels
        for dilation in config.dilations:
            layers.append(_layer(width, dilation, config))
            width = config.channels
        head = nn.Conv3d(width, out_channels, kernel_size=1)
        return nn.Sequential(OrderedDict(layers=nn.Sequential(*layers), head=head))

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Returns the part by the position of a layer; there is one resolution."""
        middle, layer = module_count(network, "layers") // 2, level_of(name)
        if layer == middle:
            return "bottleneck", 0
        return ("encoder" if layer < middle else "decoder"), 0

    def followed_by_norm(self, network: nn.Module, name: str) -> bool:
        """Returns whether the layer of a convolution has a norm."""
        return hasattr(network.get_submodule(name.rpartition(".")[0]), "norm")


def _layer(width: int, dilation: int, config: MeshNetConfig) -> nn.Module:
    has_norm = config.norm == "instance"
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = nn.Conv3d(
        width, config.channels, 3, padding=dilation, dilation=dilation, bias=not has_norm
    )
    if has_norm:
        parts["norm"] = nn.InstanceNorm3d(config.channels)
    parts["act"] = ACTIVATIONS[config.activation]()
    return nn.Sequential(parts)
