"""What architectures share: roles by name or kind of layer, and features as the input of a pointwise head."""

from __future__ import annotations

import re
from math import lcm, prod
from typing import TYPE_CHECKING, Any, ClassVar

from fseft.errors import FseftError
from fseft.learn.networks.roles import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName, Role
    from fseft.schemas import Triple


TEXT_HEAD = "text_head"


class BaseArchitecture:
    """An architecture but for `build`; each says by a layer's name where it sits and whether a norm follows.

    Attributes:
        classifier: Pattern of the pointwise classifier's name; the last module that it matches.
        normed: Pattern of the layers whose output goes to a norm layer and nowhere else.
        deepest: Name of the module whose output are the deepest features, where a text head may look at them.
    """

    divisor: Triple
    minimum_patch: Triple
    classifier: ClassVar[str] = "head"
    normed: ClassVar[str] = ""
    deepest: ClassVar[str] = ""

    def place(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Part and resolution level."""
        raise NotImplementedError

    def role(self, name: str, module: nn.Module) -> Role | None:  # noqa: ARG002 - transformers go by the name
        """What the layer does, if anything."""
        return role_by_kind(module)

    def norm_follows(self, network: nn.Module, name: str) -> bool:  # noqa: ARG002 - U-Nets look at its neighbours
        """Whether the output goes to a norm layer and nowhere else."""
        return re.fullmatch(self.normed, name) is not None

    def targets(self, network: nn.Module) -> list[Target]:
        """Every module with a role and parameters, the head last; not what a method has put into the network."""
        from fseft.learn.networks.adapter_module import AdapterModule

        head = self.head_name(network)
        added = [
            name for name, module in network.named_modules() if isinstance(module, AdapterModule)
        ]
        others = tuple(f"{name}." for name in (head, *added))
        targets = []
        for name, module in network.named_modules():
            if f"{name}.".startswith(others) or next(module.parameters(), None) is None:
                continue
            role = self.role(name, module)
            if role is None:
                continue
            part, stage = self.place(network, name)
            targets.append(
                Target(name, module, part, stage, role, self.norm_follows(network, name))
            )
        return [*targets, Target(head, network.get_submodule(head), "head", 0, "conv.pointwise")]

    def features(self, network: nn.Module, x: Tensor) -> Tensor:
        """The head's input, (B, F, i, j, k)."""
        seen: list[Tensor] = []
        hook = self.head(network).register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0])
        )
        try:
            network(x)
        finally:
            hook.remove()
        return seen[0]

    def head_name(self, network: nn.Module) -> str:
        """Dotted name of the pointwise classifier."""
        names: list[str] = [
            name for name, _ in network.named_modules() if re.fullmatch(self.classifier, name)
        ]
        return names[-1]

    def head(self, network: nn.Module) -> nn.Conv3d:
        """The pointwise classifier."""
        head: Any = network.get_submodule(self.head_name(network))
        return head  # type: ignore[no-any-return]

    def replace_head(self, network: nn.Module, head: nn.Module) -> None:
        """Put in another classifier."""
        parent, _, name = self.head_name(network).rpartition(".")
        network.get_submodule(parent).add_module(name, head)

    def take_text_head(self, network: nn.Module) -> nn.Module | None:
        """Detach the head that texts drive, if the network was built with one; it is no part of the body."""
        head: nn.Module | None = getattr(network, TEXT_HEAD, None)
        if head is not None:
            delattr(network, TEXT_HEAD)
        return head

    def text_driven(
        self, network: nn.Module, head: nn.Module, indices: Sequence[int | None]
    ) -> nn.Module:
        """A head of a detached text head, for the classes of these indices (None: never)."""
        from fseft.learn.networks.text_head import TextDriven

        return TextDriven(head, network.get_submodule(self.deepest), indices)  # type: ignore[arg-type]

    def refuse_deeper(self, reduction: int) -> None:
        """Patches are cut for `divisor`, whatever the depth.

        Raises:
            FseftError: The sides of this network's input must be divisible by more.
        """
        if any(side % reduction for side in self.divisor):
            raise FseftError(
                f"the network shrinks the image by {reduction}, which does not divide {self.divisor}",
                hint="Take fewer levels.",
            )


def role_by_kind(module: nn.Module) -> Role | None:
    """The role of a layer of a convolutional network."""
    from torch import nn

    if isinstance(module, nn.BatchNorm3d | nn.InstanceNorm3d | nn.GroupNorm):
        return "norm"
    if isinstance(module, nn.PReLU):
        return "act"
    if isinstance(module, nn.ConvTranspose3d):
        return "conv.transposed"
    if isinstance(module, nn.Conv3d):
        return "conv.pointwise" if set(module.kernel_size) == {1} else "conv.spatial"
    return None


def depth(network: nn.Module, name: str) -> int:
    """Number of levels but one: the length of a list of modules, one for each step."""
    return len(network.get_submodule(name))  # type: ignore[arg-type]


def level(name: str) -> int:
    """The first number in a name."""
    return int(re.findall(r"\d+", name)[0])


def reduction(strides: Iterable[int | Sequence[int]]) -> int:
    """What each side of the image must be divisible by, whatever the axis."""
    axes = zip(
        *((stride,) * 3 if isinstance(stride, int) else stride for stride in strides), strict=True
    )
    return lcm(*map(prod, axes))
