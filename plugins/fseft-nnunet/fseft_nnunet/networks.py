"""PlainConvUNet and ResidualEncoderUNet of nnU-Net v2, with the roles of their layers.

Each tensor has one name, and only the head at full resolution is present.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.learn.networks.base_architecture import (
    BaseArchitecture,
    level_of,
    limits_by_strides,
    module_count,
)
from fseft_nnunet.configs import PlainConvConfig, ResEncConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName, PatchLimits
    from fseft.schemas import Triple

HEADS = "decoder.seg_layers."


class _UNet(BaseArchitecture):
    """Roles of the layers of both networks."""

    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    head_pattern = r"decoder\.seg_layers\.\d+"
    before_norm_pattern = r".*\.conv"

    def patch_limits(self, config: PlainConvConfig | ResEncConfig) -> PatchLimits:
        """Returns limits by the strides; the instance norm of the coarsest level needs voxels."""
        return limits_by_strides(config.strides)

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts encoder stages from the finest (and the stem), decoder ones from the coarsest."""
        deepest = module_count(network, "encoder.stages") - 1
        if name.startswith("decoder."):
            return "decoder", deepest - 1 - level_of(name)
        stage = level_of(name)
        return ("bottleneck" if stage == deepest else "encoder"), stage


class PlainConv(_UNet):
    """Architecture `plainconv`."""

    config_class = PlainConvConfig

    def build(self, *, in_channels: int, out_channels: int, config: PlainConvConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        network = PlainConvUNet(in_channels, **network_settings(config, out_channels))
        return single_head(network)


class ResEnc(_UNet):
    """Architecture `resenc`."""

    config_class = ResEncConfig

    def build(self, *, in_channels: int, out_channels: int, config: ResEncConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

        network = ResidualEncoderUNet(in_channels, **network_settings(config, out_channels))
        return single_head(network)


def network_settings(config: PlainConvConfig | ResEncConfig, out_channels: int) -> dict[str, Any]:
    """Returns the arguments of nnU-Net's classes.

    The layers are those of nnU-Net's own planners; `fseft_nnunet.plans` rejects others.
    """
    from torch import nn

    return {
        **config.model_dump(),
        "n_stages": len(config.features_per_stage),
        "num_classes": out_channels,
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def single_head(network: Any) -> nn.Module:
    """Removes second names of layers, and the heads that only deep supervision uses, in place."""
    from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He
    from torch import nn

    # nnU-Net initialises residual branches with zeros, where a low-rank delta gets no gradient.
    network.apply(InitWeights_He(1e-2))
    del network.decoder.encoder
    heads = network.decoder.seg_layers
    for coarse in range(len(heads) - 1):
        heads[coarse] = nn.Identity()
    for module in network.modules():
        if isinstance(module, ConvDropoutNormReLU):
            # The forward pass needs the order of the layers, the state dict no second names.
            module.__dict__["all_modules"] = module._modules.pop("all_modules")
    unet: nn.Module = network
    return unet


def one_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the heads of deep supervision from a checkpoint; the last head is the finest."""
    numbers = [int(name.split(".")[2]) for name in tensors if name.startswith(HEADS)]
    last = f"{HEADS}{max(numbers, default=0)}."
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(HEADS) or name.startswith(last)
    }
