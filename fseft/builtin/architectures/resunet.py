"""A small residual U-Net: MONAI's UNet, entered at half resolution, with a pointwise head of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.builtin.architectures.unet import UNet
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import nn

SPEC = ArchitectureSpec(
    name="resunet",
    factory="fseft.builtin.architectures.resunet:ResUNet",
    summary="residual U-Net that enters at half resolution: 2.8 M parameters, made for a CPU",
    reference="Kerfoot et al. 2018, doi:10.1007/978-3-030-12029-0_40",
)


class ResUNet(UNet):
    """Architecture `resunet`: a `unet` of other widths."""

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...] = (16, 32, 64, 128, 128),
        features: int = 12,
        **more: Any,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k); `more` as for `unet`."""
        return super().build(
            in_channels=in_channels,
            out_channels=out_channels,
            channels=channels,
            features=features,
            **more,
        )
