"""Base class of architectures: roles by name or type of a layer, features as input of the head."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from fseft.errors import FseftError
from fseft.learn.networks.roles import PatchLimits, Target
from fseft.plugin import Config

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from fseft.learn.networks.roles import PartName, Role
    from fseft.schemas import Triple


TEXT_HEAD = "text_head"
"""Name of the submodule that holds a text-driven head."""


class BaseArchitecture:
    """Base class of architectures; a subclass defines `build` and `part_and_stage`.

    Attributes:
        config_class: Hyper-parameters that `build` accepts, the same class as `config` of the spec.
        divisor: Every side of an input patch (i, j, k) must be divisible by it, in voxels.
        minimum_patch: The smallest input patch (i, j, k), in voxels.
        head_pattern: Regular expression of the name of the pointwise classifier; the last module
            that matches is the head.
        before_norm_pattern: Regular expression of the names of layers whose only consumer is a
            normalisation layer.
        deepest_module: Name of the module whose output a text-driven head takes as the deepest
            features; empty where the architecture supports no such head.

    Examples:
        >>> from fseft.learn.networks.base_architecture import BaseArchitecture, level_of
        >>> class PlainUNet(BaseArchitecture):
        ...     divisor = (16, 16, 16)
        ...     minimum_patch = (32, 32, 32)
        ...     before_norm_pattern = r".*[.]conv"
        ...
        ...     def part_and_stage(self, network, name):
        ...         return ("encoder" if name.startswith("encoder") else "decoder"), level_of(name)
        >>> PlainUNet().part_and_stage(None, "encoder.2.conv")
        ('encoder', 2)
    """

    config_class: ClassVar[type[Config]] = Config
    divisor: Triple
    minimum_patch: Triple
    head_pattern: ClassVar[str] = "head"
    before_norm_pattern: ClassVar[str] = ""
    deepest_module: ClassVar[str] = ""

    def part_and_stage(self, network: nn.Module, name: str) -> tuple[PartName, int]:
        """Returns the part of the network that a layer belongs to, and its level (0 = finest).

        Args:
            network: As returned by `build`.
            name: Dotted name of a layer with a role.

        Raises:
            NotImplementedError: The subclass does not define it.
        """
        raise NotImplementedError

    def role(self, name: str, module: nn.Module) -> Role | None:
        """Returns the role of a module, or None where methods must leave it alone.

        Args:
            name: Dotted name of the module.
            module: The module.
        """
        del name  # architectures whose layers share a type decide by the name
        return role_by_type(module)

    def followed_by_norm(self, network: nn.Module, name: str) -> bool:
        """Returns whether a normalisation layer is the only consumer of a layer's output.

        Args:
            network: As returned by `build`.
            name: Dotted name of a layer with a role.
        """
        del network  # architectures that reuse names look at the neighbours of the layer
        return re.fullmatch(self.before_norm_pattern, name) is not None

    def targets(self, network: nn.Module) -> list[Target]:
        """Lists every module with a role and parameters, the head last.

        Modules that a method has added to the network (`AdapterModule`) are left out.
        """
        from fseft.learn.networks.adapter_module import AdapterModule

        head = self.head_name(network)
        modules = dict(network.named_modules())
        added = [name for name in modules if isinstance(modules[name], AdapterModule)]
        excluded = tuple(f"{name}." for name in (head, *added))
        targets = []
        for name, module in modules.items():
            if f"{name}.".startswith(excluded) or next(module.parameters(), None) is None:
                continue
            role = self.role(name, module)
            if role is None:
                continue
            part, stage = self.part_and_stage(network, name)
            before_norm = self.followed_by_norm(network, name)
            targets.append(Target(name, module, part, stage, role, before_norm))
        return [*targets, Target(head, network.get_submodule(head), "head", 0, "conv.pointwise")]

    def features(self, network: nn.Module, x: Tensor) -> Tensor:
        """Returns the input of the head.

        Args:
            network: As returned by `build`, on the device of `x`.
            x: Images (B, C, i, j, k).

        Returns:
            Features (B, F, i, j, k).
        """
        captured: list[Tensor] = []
        hook = self.head(network).register_forward_pre_hook(
            lambda _, inputs: captured.append(inputs[0])
        )
        try:
            network(x)
        finally:
            hook.remove()
        return captured[0]

    def head_name(self, network: nn.Module) -> str:
        """Returns the dotted name of the pointwise classifier."""
        modules = network.named_modules()
        names: list[str] = [name for name, _ in modules if re.fullmatch(self.head_pattern, name)]
        return names[-1]

    def head(self, network: nn.Module) -> nn.Conv3d:
        """Returns the pointwise classifier."""
        head: Any = network.get_submodule(self.head_name(network))
        return head  # type: ignore[no-any-return]

    def replace_head(self, network: nn.Module, head: nn.Module) -> None:
        """Replaces the pointwise classifier by another module on the same features, in place.

        Args:
            network: As returned by `build`.
            head: Maps features (B, F, i, j, k) to logits (B, out, i, j, k).
        """
        parent, _, name = self.head_name(network).rpartition(".")
        network.get_submodule(parent).add_module(name, head)

    def detach_text_head(self, network: nn.Module) -> nn.Module | None:
        """Removes and returns the text-driven head; None if the network was built without one.

        The text-driven head is a second head: the pointwise classifier stays in place.
        """
        head: nn.Module | None = getattr(network, TEXT_HEAD, None)
        if head is not None:
            delattr(network, TEXT_HEAD)
        return head

    def make_text_driven_head(
        self, network: nn.Module, head: nn.Module, indices: Sequence[int | None]
    ) -> nn.Module:
        """Builds a softmax head from a detached text head.

        Args:
            network: Provides the deepest features.
            head: The detached text head.
            indices: Class of the text head for each structure; None for a structure that it does
                not know, which is then never predicted.

        Returns:
            A module that maps features (B, F, i, j, k) to logits (B, 1 + structures, i, j, k).
        """
        from fseft.learn.networks.text_head import TextDrivenHead

        deepest = network.get_submodule(self.deepest_module)
        return TextDrivenHead(head, deepest, indices)  # type: ignore[arg-type]

    def require_divisible(self, downsampling: int) -> None:
        """Checks that a network's total downsampling divides `divisor`, which patches are cut by.

        Args:
            downsampling: Ratio of the finest to the coarsest resolution, in voxels.

        Raises:
            FseftError: It does not.
        """
        if any(side % downsampling for side in self.divisor):
            raise FseftError(
                f"the network downsamples by {downsampling}, which does not divide {self.divisor}",
                hint="Use fewer levels.",
            )


def role_by_type(module: nn.Module) -> Role | None:
    """Returns the role of a layer of a convolutional network by its type."""
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


def module_count(network: nn.Module, name: str) -> int:
    """Returns the length of the module list of that name, such as one module per level.

    Args:
        network: The network.
        name: Dotted name of a module list.
    """
    return len(network.get_submodule(name))  # type: ignore[arg-type]


def level_of(name: str) -> int:
    """Returns the first number in a layer's name.

    Examples:
        >>> level_of("up_layers.2.0.conv1")
        2
    """
    return int(re.findall(r"\d+", name)[0])


def limits_by_strides(strides: Iterable[int | Sequence[int]]) -> PatchLimits:
    """Returns the limits of a U-Net, whose coarsest level keeps two voxels along each axis.

    Args:
        strides: Of each level, for all axes or (i, j, k).

    Examples:
        >>> limits_by_strides([2, (2, 2, 1)]).minimum
        (8, 8, 4)
    """
    sides = [1, 1, 1]
    for stride in strides:
        for axis in range(3):
            sides[axis] *= stride if isinstance(stride, int) else stride[axis]
    i, j, k = sides
    return PatchLimits(divisor=(i, j, k), minimum=(2 * i, 2 * j, 2 * k))
