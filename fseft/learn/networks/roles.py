"""Roles: what each module of a network is for, so that methods need no names of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

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
    """One module (or bare parameter's owner) of a network, and what it is.

    Attributes:
        name: Dotted name in the network.
        module: The module.
        part: Where it sits.
        stage: Resolution level, 0 = finest.
        role: What it does.
        followed_by_norm: The output goes to a norm layer and nowhere else, so that a scale and bias of it have no
            effect, or none that the norm's own would not have.
    """

    name: str
    module: nn.Module
    part: PartName
    stage: int
    role: Role
    followed_by_norm: bool = False

    @property
    def weight_has_effect(self) -> bool:
        """Whether it is more than one factor for each output with a norm after it, whose own scale does the same."""
        return not (self.followed_by_norm and self.module.get_parameter("weight")[0].numel() == 1)


class Architecture(Protocol):
    """What an `ArchitectureSpec.factory` gives: builds a network and knows its roles.

    Attributes:
        divisor: Every side of the input must be divisible by it.
        minimum_patch: The smallest input; the deepest level needs at least two voxels for its instance norm.
    """

    divisor: Triple
    minimum_patch: Triple

    def build(self, *, in_channels: int, out_channels: int, **hparams: Any) -> nn.Module:
        """A network with random weights: (B, in, i, j, k) -> logits (B, out, i, j, k)."""

    def targets(self, network: nn.Module) -> list[Target]:
        """All modules that a method may work on, the head included."""

    def features(self, network: nn.Module, x: Tensor) -> Tensor:
        """The input of the head, (B, F, i, j, k): all that black-box methods see."""

    def head(self, network: nn.Module) -> nn.Conv3d:
        """The last, pointwise convolution."""

    def replace_head(self, network: nn.Module, head: nn.Module) -> None:
        """Put another classifier of the features in its place."""


TEXT_CLASSES = "text_classes"
"""The hyperparameter that gives a network a head driven by texts."""


@runtime_checkable
class TextDriving(Protocol):
    """An architecture whose public models have a head driven by texts, which no pointwise classifier can express.

    Such a model says so by `text_classes` among its hparams.
    """

    def take_text_head(self, network: nn.Module) -> nn.Module | None:
        """Detach the text head, if the network has one."""

    def text_driven(
        self, network: nn.Module, head: nn.Module, indices: Sequence[int | None]
    ) -> nn.Module:
        """A softmax head of a detached text head, for the classes of these indices (None: never)."""
