"""PEFT's layers in a network of fseft.

Each is inserted parallel to its base layer, which keeps its place and the names of its tensors.
"""

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
from fseft.learn.adapters.method import BaseMethod
from fseft.learn.networks.adapter_module import AdapterModule
from fseft_hf_peft.library import PEFT_TYPE_TO_TUNER_MAPPING, BaseTunerLayer, peft
from fseft_hf_peft.tuners import HEAD_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator

    from fseft.learn.networks.roles import Architecture, Target
    from fseft_hf_peft.config import TunerConfig

HARMLESS_WARNINGS = (
    "Failed to load the CUDA extension",  # BOFT works without it
    "Setting boft_n_butterfly_factor to 1",
    "Specified to not save",  # random bases are recomputed from their seed
    "Unsupported layer type",  # norms have no input and output features
)


class ParallelLayer(AdapterModule):
    """A layer of PEFT that computes in place of the layer that it changes.

    PEFT wraps the base layer, which changes the names of its tensors. Here the base layer stays in
    the network, holds this module as `peft`, and delegates its `forward` to it.

    Args:
        layer: The layer of PEFT.
        base: The layer that it changes.
    """

    def __init__(self, layer: Any, base: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        # A plain attribute: as a submodule the base's tensors would have a second name.
        del layer._modules["base_layer"]
        vars(layer)["base_layer"] = base
        layer.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the output of the changed layer.

        PEFT calls the base layer inside, which must not delegate to this module again.
        """
        self.enabled = False
        try:
            output: Tensor = self.layer(x)
        finally:
            self.enabled = True
        return output

    def merge(self) -> dict[str, Tensor]:
        """Merges the change into the base layer, as PEFT does.

        Returns:
            The tensors of a layer that replaces the base layer; empty except for LN tuning.
        """
        base = self.layer.get_base_layer()
        self.layer.merge(safe_merge=True)
        merged: nn.Module = self.layer.get_base_layer()
        return {} if merged is base else merged.state_dict()


def _forward(module: nn.Module, x: Tensor) -> Tensor:
    """Computes a changed layer; bound to the module, so that copies of a network use their own."""
    parallel: ParallelLayer = module.get_submodule("peft")  # type: ignore[assignment]
    output: Tensor = parallel(x) if parallel.enabled else type(module).forward(module, x)
    return output


@dataclass
class PeftNetwork(AdaptedNetwork):
    """A network with layers of PEFT.

    Attributes:
        merges: Whether they can be merged into the weights.
    """

    merges: bool = True

    def parallel_layers(self) -> dict[nn.Module, ParallelLayer]:
        """Returns the layers of PEFT, by the layers that they change."""
        inner = {module: getattr(module, "peft", None) for module in self.network.modules()}
        return {
            module: layer for module, layer in inner.items() if isinstance(layer, ParallelLayer)
        }

    def train(self) -> None:
        """Sets the training mode; PEFT's layers, with their dropout, are always in it."""
        super().train()
        for layer in self.parallel_layers().values():
            layer.train()

    def merge(self) -> nn.Module:
        """Merges the changes into the weights if the tuner allows it; otherwise its layers stay."""
        if self.merges:
            for module, layer in self.parallel_layers().items():
                replaced = layer.merge()
                del module.peft, module.forward
                module.load_state_dict(replaced, strict=False)
        return super().merge()


class PeftMethod(BaseMethod):
    """A tuner of PEFT; the type of its configuration states which one."""

    network_type: ClassVar[type[PeftNetwork]] = PeftNetwork
    config: TunerConfig

    def __init__(self, config: TunerConfig) -> None:
        super().__init__(config)
        self.tuner = config.tuner
        self.roles: tuple[str, ...] = config.roles  # type: ignore[attr-defined]
        self.name, self.learning_rate = self.tuner.method, self.tuner.rate
        self.needs = f"{' or '.join(self.roles)} layers that PEFT can change"
        self.head_lr_multiplier = HEAD_RATE / self.tuner.rate

    def wants(self, target: Target) -> bool:
        """Returns True for layers of the selected parts, stages and roles that PEFT supports."""
        config = self.config
        return (
            target.part in config.parts
            and target.role in self.roles
            and (not config.stages or target.stage in config.stages)
            and target.weight_has_effect
            and is_supported(target.module)
        )

    def adapted_type(self) -> type[AdaptedNetwork]:
        """Returns the class that merges PEFT's layers."""
        return self.network_type

    def settings(self, targets: Sequence[Target]) -> dict[str, Any]:  # noqa: ARG002
        """Returns the arguments of PEFT's configuration, except the names of the layers."""
        return self.config.settings()

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> PeftNetwork:
        """Inserts a layer of PEFT parallel to each selected one, and freezes the rest but the head.

        Raises:
            IncompatibleError: PEFT refuses the settings or a layer.
        """
        targets = self.select(architecture, network)
        settings = self.settings(targets)
        try:
            self._inject(network, targets, settings, generator)
        except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise IncompatibleError(
                f"PEFT refuses the settings of the method {self.name!r}: {error}".rstrip("."),
                hint=f"Change the settings or the stages: `fseft show method {self.name}`.",
            ) from error
        parameters = network.named_parameters()
        adapted = self.network_type.freeze_except(
            [name for name, parameter in parameters if parameter.requires_grad],
            architecture,
            network,
            learning_rate=self.learning_rate,
            head_lr_multiplier=self.head_lr_multiplier,
        )
        assert isinstance(adapted, PeftNetwork)  # noqa: S101 - the type of the class method
        adapted.merges = self.tuner.merges
        return adapted

    def _inject(
        self,
        network: nn.Module,
        targets: Sequence[Target],
        settings: dict[str, Any],
        generator: Generator,
    ) -> None:
        """Lets PEFT wrap the layers, then restores them with PEFT's layers parallel to them."""
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            for message in HARMLESS_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            torch.manual_seed(seed)
            config_type = getattr(peft, self.tuner.config)
            config = config_type(target_modules=exact_pattern(targets), **settings)
            PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](network, config, "default")
        del network.peft_config
        for target in targets:
            layer = network.get_submodule(target.name)
            assert isinstance(layer, BaseTunerLayer)  # noqa: S101
            parent, _, name = target.name.rpartition(".")
            network.get_submodule(parent).add_module(name, target.module)
            target.module.add_module("peft", ParallelLayer(layer, target.module))
            target.module.forward = MethodType(_forward, target.module)


class IA3(PeftMethod):
    """Method `hf-ia3`: layers other than queries, keys and values are scaled at their inputs."""

    def wants(self, target: Target) -> bool:
        """Returns False for a single input channel, whose scale a norm layer cancels."""
        if not super().wants(target):
            return False
        inputs = target.module.get_parameter("weight").shape[1]
        return not (target.followed_by_norm and inputs == 1)

    def settings(self, targets: Sequence[Target]) -> dict[str, Any]:
        """Returns the layers that are scaled at their inputs; PEFT scales outputs by default."""
        scaled_at_input = [target for target in targets if target.role != "attn.qkv"]
        return {"feedforward_modules": exact_pattern(scaled_at_input)}


def exact_pattern(targets: Sequence[Target]) -> str:
    """Returns a pattern of exactly these layers: PEFT matches plain names as suffixes too."""
    return "|".join(re.escape(target.name) for target in targets) or "(?!)"


def is_supported(module: nn.Module) -> bool:
    """Returns whether PEFT, up to 0.21.2, computes and merges this layer correctly.

    It ignores dilation and padding mode of a convolution, and merges neither groups nor kernels of
    1x1xk (huggingface/peft issues 3697 and 3768).
    """
    if not isinstance(module, nn.Conv3d):
        return True
    plain = module.dilation == (1, 1, 1) and module.padding_mode == "zeros" and module.groups == 1
    return plain and module.kernel_size[:2] != (1, 1)
