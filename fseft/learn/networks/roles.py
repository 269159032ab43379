"""Roles: the function of each module in a network, by which methods select layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from fseft.plugin import Config
    from fseft.schemas import Triple

PartName = Literal["encoder", "bottleneck", "decoder", "head"]
Role = Literal[
    "attn.qkv",
    "attn.proj",
    "mlp",
    "mlp.fc1",
    "mlp.fc2",
    "patch_embed",
    "downsample",
    "conv.spatial",
    "conv.pointwise",
    "conv.transposed",
    "norm",
    "act",
    "pos_bias",
    "block",
]


@dataclass(frozen=True)
class Target:
    """A module that a method may adapt, or the owner of a bare parameter, and its role.

    Attributes:
        name: Dotted name in the network.
        module: The module itself.
        part: Part of the network that it belongs to.
        stage: Resolution level, 0 = finest.
        role: Function in the network.
        followed_by_norm: True if a normalisation layer is the only consumer of the output. A
            per-channel scale or bias before it is cancelled, or equals the norm's own.
    """

    name: str
    module: nn.Module
    part: PartName
    stage: int
    role: Role
    followed_by_norm: bool = False

    @property
    def weight_has_effect(self) -> bool:
        """Whether changing the weight changes the network's output.

        It does not where the weight is one factor per output channel that a following norm cancels.
        """
        return not (self.followed_by_norm and self.module.get_parameter("weight")[0].numel() == 1)


class Architecture(Protocol):
    """Builder of a network that knows its roles; the type of `ArchitectureSpec.factory`'s result.

    Attributes:
        divisor: Every side of an input patch (i, j, k) must be divisible by it, in voxels.
        minimum_patch: The smallest input patch (i, j, k), in voxels; the deepest level needs at
            least two voxels for its instance norm.
    """

    divisor: Triple
    minimum_patch: Triple

    @property
    def config_class(self) -> type[Config]:
        """Class of the hyper-parameters that `build` accepts, the same as `config` of the spec."""

    def build(self, *, in_channels: int, out_channels: int, config: Any) -> nn.Module:
        """Builds a network with random weights.

        Args:
            in_channels: Channels of the image.
            out_channels: Channels of the logits.
            config: An instance of `config_class`.

        Returns:
            A module that maps images (B, in, i, j, k) to logits (B, out, i, j, k).
        """

    def targets(self, network: nn.Module) -> list[Target]:
        """Lists all modules that a method may adapt, including the head."""

    def features(self, network: nn.Module, x: Tensor) -> Tensor:
        """Returns the input of the head, which black-box methods train on.

        Args:
            network: The network.
            x: Images (B, C, i, j, k), preprocessed, with sides that `divisor` divides.

        Returns:
            Features (B, F, i, j, k), at the resolution of the images.
        """

    def head(self, network: nn.Module) -> nn.Conv3d:
        """Returns the last layer, a pointwise convolution."""

    def replace_head(self, network: nn.Module, head: nn.Module) -> None:
        """Replaces the head by another classifier of the features, in place.

        Args:
            network: The network.
            head: Maps features (B, F, i, j, k) to logits (B, out, i, j, k).
        """


@dataclass(frozen=True)
class PatchLimits:
    """The patches (i, j, k) that a network accepts, in voxels.

    Attributes:
        divisor: Every side must be divisible by it.
        minimum: The smallest patch.
    """

    divisor: Triple
    minimum: Triple

    def nearest(self, patch: Sequence[int]) -> Triple:
        """Returns the smallest patch that is accepted and not smaller than another one."""
        sides = [
            max(smallest, ceil(side / step) * step)
            for side, step, smallest in zip(patch, self.divisor, self.minimum, strict=True)
        ]
        return sides[0], sides[1], sides[2]


@runtime_checkable
class SizedArchitecture(Protocol):
    """An architecture whose hyper-parameters decide which patches its networks accept."""

    def patch_limits(self, config: Any) -> PatchLimits:
        """Returns the limits of a network, which replace `divisor` and `minimum_patch`.

        Args:
            config: An instance of `config_class`.
        """


TEXT_CLASSES = "text_classes"
"""The hyper-parameter that adds a text-driven head to a network: its number of classes."""


@runtime_checkable
class TextHeadArchitecture(Protocol):
    """An architecture whose public models have a text-driven head.

    Such a head depends on the image and cannot be expressed by a pointwise classifier. The model's
    hyper-parameters contain `text_classes`.
    """

    def detach_text_head(self, network: nn.Module) -> nn.Module | None:
        """Removes the text-driven head and returns it; None if the network was built without."""

    def make_text_driven_head(
        self, network: nn.Module, head: nn.Module, indices: Sequence[int | None]
    ) -> nn.Module:
        """Builds a softmax head from a detached text head.

        Args:
            network: Provides the deepest features.
            head: The detached text head.
            indices: Class of the text head for each structure; None for a structure that it does
                not know, which is then never predicted.
        """
