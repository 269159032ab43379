"""DynUNet: MONAI's nnU-Net, without the heads of deep supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.learn.networks.base_architecture import BaseArchitecture, depth, level, reduction
from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName
    from fseft.schemas import Triple

SPEC = ArchitectureSpec(
    name="dynunet",
    factory="fseft.builtin.architectures.dynunet:DynUNet",
    summary="the U-Net of nnU-Net, plain or residual, with any kernels and strides",
    reference="Isensee et al. 2019, arXiv:1904.08128",
)


class DynUNet(BaseArchitecture):
    """Architecture `dynunet`; state dicts have the names of MONAI's class, each block once."""

    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    classifier = r"output_block\.conv\.conv"
    normed = r".*\.conv[123]\.conv"

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: tuple[int, ...] = (32, 64, 128, 256, 320, 320),
        strides: tuple[int | Triple, ...] | None = None,
        kernel_size: int | Triple | tuple[int | Triple, ...] = 3,
        res_block: bool = False,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k).

        Args:
            in_channels: Of the image.
            out_channels: Of the head.
            filters: Width of each level.
            strides: Into each level but the first, which is at full resolution. Twos if not given.
            kernel_size: Of all levels, or of each.
            res_block: Whether the blocks of encoder and bottleneck are residual.
        """
        from monai.networks.nets import DynUNet as Network

        strides = strides or (2,) * (len(filters) - 1)
        self.refuse_deeper(reduction(strides))
        kernels = (
            kernel_size if isinstance(kernel_size, list | tuple) else [kernel_size] * len(filters)
        )
        network: nn.Module = Network(
            3,
            in_channels,
            out_channels,
            kernels,
            (1, *strides),
            strides,
            filters=filters,
            res_block=res_block,
        )
        # The blocks are registered a second time in the order in which they run: keep that order, not those names.
        network.__dict__["skip_layers"] = network._modules.pop("skip_layers")
        return network

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Downsampling blocks count from the second finest level, upsampling blocks from the coarsest."""
        deepest = depth(network, "upsamples")
        if name.startswith("upsamples"):
            return "decoder", deepest - 1 - level(name)
        if name.startswith("downsamples"):
            return "encoder", level(name) + 1
        return ("bottleneck", deepest) if name.startswith("bottleneck") else ("encoder", 0)
