"""PlainConvUNet and ResidualEncoderUNet of nnU-Net v2: each tensor once, one head, and the roles of the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.learn.networks.base_architecture import BaseArchitecture, depth, level, reduction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

HEADS = "decoder.seg_layers."


class _UNet(BaseArchitecture):
    """What both share; the settings of `build` have the names of nnU-Net's plans."""

    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    classifier = r"decoder\.seg_layers\.\d+"
    normed = r".*\.conv"

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Encoder stages count from the finest level, the decoder's from the coarsest; the stem is in the finest."""
        deepest = depth(network, "encoder.stages") - 1
        if name.startswith("decoder."):
            return "decoder", deepest - 1 - level(name)
        return ("bottleneck", deepest) if level(name) == deepest else ("encoder", level(name))


class PlainConv(_UNet):
    """Architecture `plainconv`."""

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
        kernel_sizes: int | Sequence[int | Triple] = 3,
        strides: Sequence[int | Triple] = (1, 2, 2, 2, 2, 2),
        n_conv_per_stage: int | Sequence[int] = 2,
        n_conv_per_stage_decoder: int | Sequence[int] = 2,
        conv_bias: bool = True,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            features_per_stage: Width of each stage.
            kernel_sizes: Of all stages, or of each.
            strides: Into each stage, the first included.
            n_conv_per_stage: In the encoder.
            n_conv_per_stage_decoder: In the decoder, from the coarsest stage on.
            conv_bias: Whether convolutions before a norm have a bias.
        """
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        self.refuse_deeper(reduction(strides))
        network = PlainConvUNet(
            n_conv_per_stage=n_conv_per_stage,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
            **_common(
                in_channels, out_channels, features_per_stage, kernel_sizes, strides, conv_bias
            ),
        )
        return _each_once(network)


class ResEnc(_UNet):
    """Architecture `resenc`; the defaults are the ResEnc-L of nnssl."""

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        features_per_stage: Sequence[int] = (32, 64, 128, 256, 320, 320),
        kernel_sizes: int | Sequence[int | Triple] = 3,
        strides: Sequence[int | Triple] = (1, 2, 2, 2, 2, 2),
        n_blocks_per_stage: int | Sequence[int] = (1, 3, 4, 6, 6, 6),
        n_conv_per_stage_decoder: int | Sequence[int] = 1,
        conv_bias: bool = True,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k); the same settings, with residual blocks in the encoder."""
        from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet

        self.refuse_deeper(reduction(strides))
        network = ResidualEncoderUNet(
            n_blocks_per_stage=n_blocks_per_stage,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
            **_common(
                in_channels, out_channels, features_per_stage, kernel_sizes, strides, conv_bias
            ),
        )
        return _each_once(network)


def _common(
    in_channels: int,
    out_channels: int,
    features: Sequence[int],
    kernels: int | Sequence[int | Triple],
    strides: Sequence[int | Triple],
    bias: bool,
) -> dict[str, Any]:
    """What nnU-Net's plans give both classes; `fseft_nnunet.plans` lets no other kinds of layers in."""
    from torch import nn

    return {
        "input_channels": in_channels,
        "num_classes": out_channels,
        "n_stages": len(features),
        "features_per_stage": features,
        "kernel_sizes": kernels,
        "strides": strides,
        "conv_bias": bias,
        "conv_op": nn.Conv3d,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }


def _each_once(network: Any) -> nn.Module:
    """Take away the second names of layers, and the heads that only deep supervision uses."""
    from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He
    from torch import nn

    # nnU-Net starts residual branches at zero, where a low-rank delta of them would get no gradient.
    network.apply(InitWeights_He(1e-2))
    del network.decoder.encoder
    heads = network.decoder.seg_layers
    for coarse in range(len(heads) - 1):
        heads[coarse] = nn.Identity()
    for module in network.modules():
        if isinstance(module, ConvDropoutNormReLU):
            # The order in which the layers run: kept, but not as a module of its own.
            module.__dict__["all_modules"] = module._modules.pop("all_modules")
    made: nn.Module = network
    return made


def one_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors without the heads of deep supervision; the last one is that at full resolution."""
    last = max((int(name.split(".")[2]) for name in tensors if name.startswith(HEADS)), default=0)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(HEADS) or name.startswith(f"{HEADS}{last}.")
    }
