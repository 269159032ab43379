"""Architecture `dynunet`: MONAI's DynUNet, without the heads of deep supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from fseft.lazy_imports import import_lazily
from fseft.learn.networks.base_architecture import (
    BaseArchitecture,
    level_of,
    limits_by_strides,
    module_count,
)
from fseft.plugin import ArchitectureSpec, Config
from fseft.schemas import Triple  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from torch import nn

    from fseft.learn.networks.roles import PartName, PatchLimits


class DynUNetConfig(Config):
    """Hyper-parameters of `dynunet`."""

    filters: tuple[int, ...] = Field(
        default=(32, 64, 128, 256, 320, 320), description="width of each level, the finest first"
    )
    strides: tuple[int | Triple, ...] | None = Field(
        default=None,
        description="stride into each level except the first, which has full resolution; "
        "default: twos",
    )
    kernel_size: int | tuple[int | Triple, ...] = Field(
        default=3, description="kernel size of all levels, or a list with one entry per level"
    )
    res_block: bool = Field(
        default=False, description="use residual blocks in encoder and bottleneck"
    )


SPEC = ArchitectureSpec(
    name="dynunet",
    factory="fseft.builtin.architectures.dynunet:DynUNet",
    summary="the U-Net of nnU-Net, plain or residual, with any kernels and strides",
    config=DynUNetConfig,
    reference="Isensee et al. 2019, arXiv:1904.08128",
)


class DynUNet(BaseArchitecture):
    """Architecture `dynunet`; state dicts have the names of MONAI's class, each block once."""

    config_class = DynUNetConfig
    divisor: Triple = (32, 32, 32)
    minimum_patch: Triple = (64, 64, 64)
    head_pattern = r"output_block\.conv\.conv"
    before_norm_pattern = r".*\.conv[123]\.conv"

    def build(self, *, in_channels: int, out_channels: int, config: DynUNetConfig) -> nn.Module:
        """Builds a network (B, in, i, j, k) -> logits (B, out, i, j, k)."""
        import_lazily("monai")
        from monai.networks.nets import DynUNet as Network

        levels, strides, kernels = len(config.filters), _strides(config), config.kernel_size
        network: nn.Module = Network(
            3,
            in_channels,
            out_channels,
            (kernels,) * levels if isinstance(kernels, int) else kernels,
            (1, *strides),
            strides,
            filters=config.filters,
            res_block=config.res_block,
        )
        # MONAI registers the blocks a second time in the order in which they run: keep the order
        # for the forward pass, and drop the second names from the state dict.
        network.__dict__["skip_layers"] = network._modules.pop("skip_layers")
        return network

    def patch_limits(self, config: DynUNetConfig) -> PatchLimits:
        """Returns limits by the strides; the instance norm of the coarsest level needs voxels."""
        return limits_by_strides(_strides(config))

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Counts downsampling blocks from the second finest level, upsampling from the coarsest."""
        deepest = module_count(network, "upsamples")
        if name.startswith("upsamples"):
            return "decoder", deepest - 1 - level_of(name)
        if name.startswith("downsamples"):
            return "encoder", level_of(name) + 1
        return ("bottleneck", deepest) if name.startswith("bottleneck") else ("encoder", 0)


def _strides(config: DynUNetConfig) -> tuple[int | Triple, ...]:
    """Returns the stride into each level except the first."""
    return config.strides or (2,) * (len(config.filters) - 1)
