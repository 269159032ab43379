"""PEFT's layers in a network of fseft: each stands beside its base layer, which keeps its place and its names."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from fseft.errors import IncompatibleError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.method import require_targets
from fseft.learn.networks.adapter_module import AdapterModule
from fseft_hf_peft.library import PEFT_TYPE_TO_TUNER_MAPPING, BaseTunerLayer, peft
from fseft_hf_peft.tuners import HEAD_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator

    from fseft.learn.networks.roles import Architecture, Target
    from fseft_hf_peft.config import TunerConfig

HARMLESS = (
    "Failed to load the CUDA extension",  # BOFT does without
    "Setting boft_n_butterfly_factor to 1",
    "Specified to not save",  # random bases are drawn again from their seed
    "Unsupported layer type",  # norms have no inputs and outputs to count
)


class Beside(AdapterModule):
    """A layer of PEFT's beside the layer that it changes.

    PEFT would put it around that layer, and so change the names of the base. Here the base layer is known to it, but
    no part of it, and the base layer's `forward` asks it.

    Args:
        layer: Of PEFT.
        base: The layer that it changes.
    """

    def __init__(self, layer: Any, base: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        del layer._modules["base_layer"]
        vars(layer)["base_layer"] = base
        layer.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """The changed layer's output; meanwhile the base layer, when PEFT asks it, answers as the base."""
        self.enabled = False
        try:
            changed: Tensor = self.layer(x)
        finally:
            self.enabled = True
        return changed

    def merge(self) -> dict[str, Tensor]:
        """Fold the change into the base layer, as PEFT does it.

        Returns:
            The tensors of another layer that is to take the base layer's place, if there are any (LN tuning).
        """
        base = self.layer.get_base_layer()
        self.layer.merge(safe_merge=True)
        merged: nn.Module = self.layer.get_base_layer()
        return {} if merged is base else merged.state_dict()


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    """A method of the changed layer, so that copies of a network have one of their own."""
    beside: Beside = module.get_submodule("peft")  # type: ignore[assignment]
    output: Tensor = beside(x) if beside.enabled else type(module).forward(module, x)
    return output


@dataclass
class PeftAdapted(AdaptedNetwork):
    """A network with layers of PEFT's.

    Attributes:
        merges: Whether they can be folded into the weights.
    """

    merges: bool = True

    def changed(self) -> dict[nn.Module, Beside]:
        """The changed layers."""
        inner = {module: getattr(module, "peft", None) for module in self.network.modules()}
        return {module: beside for module, beside in inner.items() if isinstance(beside, Beside)}

    def train(self) -> None:
        """As for all methods, but PEFT's layers are always in the mode of training: dropout and sampling are theirs."""
        super().train()
        for beside in self.changed().values():
            beside.train()

    def merge(self) -> nn.Module:
        """Fold the changes into the weights where the tuner can; else its layers stay where they are."""
        if self.merges:
            for module, beside in self.changed().items():
                replaced = beside.merge()
                del module.peft, module.forward
                module.load_state_dict(replaced, strict=False)
        return super().merge()


class PeftMethod:
    """A tuner of PEFT; which one is in the type of the configuration."""

    adapted: ClassVar[type[PeftAdapted]] = PeftAdapted

    def __init__(self, config: TunerConfig) -> None:
        self.config = config
        self.tuner = config.tuner

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The layers of the chosen parts, stages and roles, but for those that PEFT does not compute right."""
        config = self.config
        chosen = [
            target
            for target in architecture.targets(network)
            if target.part in config.parts
            and target.role in config.roles  # type: ignore[attr-defined]
            and (not config.stages or target.stage in config.stages)
            and target.weight_has_effect
            and computed_right(target.module)
        ]
        roles = " or ".join(config.roles)  # type: ignore[attr-defined]
        return require_targets(chosen, f"{roles} layers that PEFT can change", self.tuner.method)

    def settings(self, targets: Sequence[Target]) -> dict[str, Any]:  # noqa: ARG002
        """The arguments of PEFT's configuration, but for the layers."""
        return self.config.settings()

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> PeftAdapted:
        """Put a layer of PEFT's beside each chosen one; all but these and the head is frozen.

        Raises:
            MisfitError: PEFT refuses the settings or a layer.
        """
        targets = self.select(architecture, network)
        settings = self.settings(targets)
        try:
            self._inject(network, targets, settings, generator)
        except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise IncompatibleError(
                f"the method {self.tuner.method!r} cannot be used so: {error}".rstrip("."),
                hint=f"Set what PEFT asks for, or other stages: `fseft show method {self.tuner.method}`.",
            ) from error
        trained = [
            name for name, parameter in network.named_parameters() if parameter.requires_grad
        ]
        rate = self.tuner.rate
        adapted = self.adapted.freeze_except(
            trained, architecture, network, learning_rate=rate, head_lr_multiplier=HEAD_RATE / rate
        )
        assert isinstance(adapted, PeftAdapted)  # noqa: S101 - `frozen_but` makes what it is asked of
        adapted.merges = self.tuner.merges
        return adapted

    def _inject(
        self,
        network: nn.Module,
        targets: Sequence[Target],
        settings: dict[str, Any],
        generator: Generator,
    ) -> None:
        """Let PEFT replace the layers, and put them back with PEFT's beside them."""
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message=message)
            torch.manual_seed(seed)
            config = getattr(peft, self.tuner.config)(target_modules=exactly(targets), **settings)
            PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](network, config, "default")
        del network.peft_config
        for target in targets:
            layer = network.get_submodule(target.name)
            assert isinstance(layer, BaseTunerLayer)  # noqa: S101
            parent, _, name = target.name.rpartition(".")
            network.get_submodule(parent).add_module(name, target.module)
            target.module.add_module("peft", Beside(layer, target.module))
            target.module.forward = MethodType(_forward, target.module)


class IA3(PeftMethod):
    """Method `hf-ia3`: all layers but queries, keys and values are scaled at their inputs."""

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Without the scale of a lone input channel that a norm layer takes away again."""
        chosen = [
            target
            for target in super().select(architecture, network)
            if not (target.followed_by_norm and target.module.get_parameter("weight").shape[1] == 1)
        ]
        return require_targets(chosen, "layers with several input channels", self.tuner.method)

    def settings(self, targets: Sequence[Target]) -> dict[str, Any]:
        """PEFT scales outputs unless it is told otherwise."""
        scaled_at_input = [target for target in targets if target.role != "attn.qkv"]
        return {"feedforward_modules": exactly(scaled_at_input)}


def exactly(targets: Sequence[Target]) -> str:
    """A pattern of these layers and no others: PEFT takes plain names for the ends of names, too."""
    return "|".join(re.escape(target.name) for target in targets) or "(?!)"


def computed_right(module: nn.Module) -> bool:
    """Whether PEFT, up to 0.21.2, can change and merge this layer.

    It forgets the dilation and the kind of padding of a convolution, and can merge neither groups nor kernels of
    1x1xk (huggingface/peft issues 3697 and 3768).
    """
    if not isinstance(module, nn.Conv3d):
        return True
    plain = module.dilation == (1, 1, 1) and module.padding_mode == "zeros" and module.groups == 1
    return plain and module.kernel_size[:2] != (1, 1)
