"""Hyper-parameters of the architectures, named as in nnU-Net's plans; imports no torch."""

from __future__ import annotations

from pydantic import Field

from fseft.plugin import Config
from fseft.schemas import Triple

Strides = tuple[int | Triple, ...]
"""Stride or kernel size of each stage, for all axes or (i, j, k)."""


class _UNetConfig(Config):
    """Hyper-parameters of both U-Nets of nnU-Net v2."""

    features_per_stage: tuple[int, ...] = Field(
        default=(32, 64, 128, 256, 320, 320), description="width of each stage, the finest first"
    )
    kernel_sizes: int | Strides = Field(
        default=3, description="kernel size of all stages, or a list with one entry per stage"
    )
    strides: Strides = Field(
        default=(1, 2, 2, 2, 2, 2), description="stride into each stage, the first included"
    )
    conv_bias: bool = Field(default=True, description="bias of convolutions before a norm")


class PlainConvConfig(_UNetConfig):
    """Hyper-parameters of `plainconv`."""

    n_conv_per_stage: int | tuple[int, ...] = Field(
        default=2, description="convolutions per encoder stage"
    )
    n_conv_per_stage_decoder: int | tuple[int, ...] = Field(
        default=2, description="convolutions per decoder stage, the coarsest first"
    )


class ResEncConfig(_UNetConfig):
    """Hyper-parameters of `resenc`; the defaults are the ResEnc-L of nnssl."""

    n_blocks_per_stage: int | tuple[int, ...] = Field(
        default=(1, 3, 4, 6, 6, 6), description="residual blocks per encoder stage"
    )
    n_conv_per_stage_decoder: int | tuple[int, ...] = Field(
        default=1, description="convolutions per decoder stage, the coarsest first"
    )


class STUNetConfig(Config):
    """Hyper-parameters of `stunet`."""

    width: int = Field(
        default=32, ge=1, description="width of the finest level: S 16, B 32, L 64, H 96"
    )
    blocks: int = Field(
        default=1, ge=1, description="residual blocks per level: S 1, B 1, L 2, H 3"
    )
    strides: Strides = Field(
        default=(2, 2, 2, 2, (1, 1, 2)),
        description="stride into each level except the first; the plans of the public models "
        "downsample the first two axes, foot-head and back-front, four times only",
    )
