"""Hyper-parameters of MeshNet; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fseft.plugin import Config


class MeshNetConfig(Config):
    """Hyper-parameters of `meshnet`; the defaults are those of `brainchop-18`."""

    channels: int = Field(default=21, ge=1, description="width of all layers")
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 4, 8, 16, 8, 4, 2, 1),
        min_length=1,
        description="dilation of each 3x3x3 convolution",
    )
    activation: Literal["elu", "relu", "gelu"] = Field(
        default="elu", description="activation of all layers"
    )
    norm: Literal["none", "instance"] = Field(
        default="none",
        description="`instance`: each channel to mean 0 and deviation 1 before the activation (a "
        "group norm with one channel per group, without weights; convolutions then have no bias)",
    )

    @property
    def receptive_field(self) -> int:
        """Side of the cube of voxels that an output depends on, without norm layers."""
        return 1 + 2 * sum(self.dilations)
