"""A small residual U-Net: MONAI's UNet, entered at half resolution, with a pointwise head of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.plugin import ArchitectureSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fseft.documents import Triple
    from fseft.learn.roles import PartName, Role, Target

SPEC = ArchitectureSpec(
    name="resunet",
    factory="fseft.builtin.architectures.resunet:ResUNet",
    summary="residual U-Net that enters at half resolution: 2.8 M parameters, made for a CPU",
    reference="Kerfoot et al. 2018, doi:10.1007/978-3-030-12029-0_40",
)


class ResUNet:
    """Architecture `resunet`. The body gives `features` channels at full resolution, the head classifies them."""

    divisor: Triple = (16, 16, 16)
    minimum_patch: Triple = (32, 32, 32)

    def build(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...] = (16, 32, 64, 128, 128),
        features: int = 12,
    ) -> nn.Module:
        """A network (B, in, i, j, k) -> (B, out, i, j, k); one halving per entry of `channels` but the last."""
        from collections import OrderedDict

        from monai.networks.nets import UNet
        from torch import nn

        body = UNet(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=features,
            channels=tuple(channels),
            strides=(2,) * (len(channels) - 1),
            num_res_units=2,
            norm=("INSTANCE", {"affine": True}),
        )
        parts = {
            "body": body,
            "norm": nn.InstanceNorm3d(features, affine=True),
            "act": nn.LeakyReLU(0.01),
            "head": nn.Conv3d(features, out_channels, kernel_size=1),
        }
        return nn.Sequential(OrderedDict(parts))

    def targets(self, network: nn.Module) -> list[Target]:
        """Convolutions, norms and the head; the stage is the depth of nesting in MONAI's UNet."""
        from fseft.learn.roles import Target

        modules = dict(network.named_modules())
        deepest = max(name.count("submodule") for name in modules)
        targets = []
        for name, module in modules.items():
            role = _role(module)
            if role is None or name == "head":
                continue
            stage = name.count("submodule")
            part: PartName = "bottleneck" if stage == deepest else "decoder" if _is_up(name) else "encoder"
            # Not so the last convolution of all: the residual is added before the norm that comes after it.
            normed = f"{name.removesuffix('.conv')}.adn.N" in modules
            targets.append(Target(name, module, part, stage, role, followed_by_norm=normed))
        return [*targets, Target("head", self.head(network), "head", 0, "conv.pointwise")]

    def features(self, network: nn.Module, x: Tensor) -> Tensor:
        """The head's input, (B, features, i, j, k)."""
        for name in ("body", "norm", "act"):
            x = network.get_submodule(name)(x)
        return x

    def head(self, network: nn.Module) -> nn.Conv3d:
        """The pointwise classifier."""
        head: Any = network.get_submodule("head")
        return head  # type: ignore[no-any-return]

    def replace_head(self, network: nn.Module, head: nn.Module) -> None:
        """Put in another classifier."""
        network.add_module("head", head)


def _is_up(name: str) -> bool:
    """MONAI numbers the parts of a level: 0 down, 1 the deeper levels, 2 up; our own norm comes last."""
    innermost = name.rsplit("submodule.", 1)[-1].removeprefix("body.model.")
    return innermost.startswith("2.") or name == "norm"


def _role(module: nn.Module) -> Role | None:
    from torch import nn

    if isinstance(module, nn.InstanceNorm3d):
        return "norm"
    if isinstance(module, nn.ConvTranspose3d):
        return "conv.transposed"
    if isinstance(module, nn.Conv3d):
        return "conv.pointwise" if set(module.kernel_size) == {1} else "conv.spatial"
    return None
