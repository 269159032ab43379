"""Architecture `resunet`: a small residual U-Net that starts at half resolution."""

from __future__ import annotations

from pydantic import Field

from fseft.builtin.architectures.unet import UNet, UNetConfig
from fseft.plugin import ArchitectureSpec


class ResUNetConfig(UNetConfig):
    """Hyper-parameters of `resunet`: those of `unet` with other default widths."""

    channels: tuple[int, ...] = Field(
        default=(16, 32, 64, 128, 128), description="width of each level, the finest first"
    )
    features: int = Field(default=12, ge=1, description="width of the head's input")


SPEC = ArchitectureSpec(
    name="resunet",
    factory="fseft.builtin.architectures.resunet:ResUNet",
    summary="residual U-Net that starts at half resolution: 2.8 M parameters, suited to a CPU",
    config=ResUNetConfig,
    reference="Kerfoot et al. 2018, doi:10.1007/978-3-030-12029-0_40",
)


class ResUNet(UNet):
    """Architecture `resunet`."""

    config_class = ResUNetConfig
