"""A network under adaptation: which of its tensors are trained, saved, switched off and merged."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fseft.errors import FseftError, PluginError
from fseft.learn.adapters.training_hooks import TrainingHooks
from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.training.distributed import distribute_like, gather_full_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

    from fseft.learn.networks.roles import Architecture


@dataclass
class AdaptedNetwork(TrainingHooks):
    """A network with adapters, as a method's `apply` returns it.

    The names of tensors are those of `network.named_parameters()` and `named_buffers()`. A method
    that acts during training returns a subclass that overrides hooks of `TrainingHooks`.

    Attributes:
        network: The module to call; the trained parameters require a gradient.
        learning_rate: Default learning rate.
        lr_multipliers: Multiples of it for some parameters, by name (LoRA+).
        train_mode: Whether dropout and batch statistics are active during training. A frozen
            backbone is run in evaluation mode.
        always_saved: Parameters that are saved even if they are not trained (the head of
            `zero-shot`).
        saved_constants: Parameters of adapters that are saved and never trained.
        base_snapshot: Values before training of the base's tensors that training changes.
        prunable: Adapters, by module name, that may be missing in an adapter file; they are pruned
            on loading.
        extra_state: Tensors of the method that belong to no layer, such as measurements; saved
            with the others.
    """

    network: nn.Module
    learning_rate: float
    lr_multipliers: dict[str, float] = field(default_factory=dict)
    train_mode: bool = False
    always_saved: frozenset[str] = frozenset()
    saved_constants: frozenset[str] = frozenset()
    base_snapshot: dict[str, Tensor] = field(default_factory=dict)
    prunable: tuple[str, ...] = ()
    extra_state: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def freeze_except(
        cls,
        trained: Iterable[str],
        architecture: Architecture,
        network: nn.Module,
        *,
        learning_rate: float,
        head_lr_multiplier: float = 1.0,
        lr_multipliers: Mapping[str, float] | None = None,
    ) -> AdaptedNetwork:
        """Freezes a network except for some modules and parameters, and the head.

        Parameters of adapters with `requires_grad=False` become `saved_constants`.

        Args:
            trained: Names of modules and parameters to train.
            architecture: Locates the head.
            network: The network; it is changed in place.
            learning_rate: Default learning rate.
            head_lr_multiplier: Multiple of it for the head, whose new rows start untrained.
            lr_multipliers: Multiples of it for some parameters, by name.
        """
        adapted = cls(network, learning_rate, lr_multipliers=dict(lr_multipliers or {}))
        added = adapted._adapter_tensors()
        constants = [
            name for name, p in network.named_parameters() if name in added and not p.requires_grad
        ]
        adapted.saved_constants = frozenset(constants)
        network.requires_grad_(False)
        adapted.unfreeze(trained)
        adapted.unfreeze(head_names(architecture, network), lr_multiplier=head_lr_multiplier)
        return adapted

    def unfreeze(self, names: Iterable[str], *, lr_multiplier: float | None = None) -> None:
        """Trains modules and parameters.

        Args:
            names: Their names in the network; a module stands for all parameters inside it.
            lr_multiplier: Multiple of the learning rate for the parameters without a multiplier.
        """
        chosen = set(names)
        for name, parameter in self.network.named_parameters():
            if name in self.saved_constants or chosen.isdisjoint(_prefixes(name)):
                continue
            parameter.requires_grad_(True)
            if lr_multiplier is not None:
                self.lr_multipliers.setdefault(name, lr_multiplier)

    def snapshot_base_weights(self) -> None:
        """Copies the base's tensors that training changes, so that `disabled` can restore them."""
        added = self._adapter_tensors()
        changing = {**dict(self.trainable_parameters()), **self._batch_statistics()}
        self.base_snapshot = {
            name: tensor.detach().clone() for name, tensor in changing.items() if name not in added
        }

    def trainable_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Returns name and parameter of everything that training changes."""
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]

    def train(self) -> None:
        """Sets the network to training mode, or to evaluation mode if the backbone is frozen."""
        self.network.train(self.train_mode)

    def param_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Returns parameter groups for an optimiser, one per distinct learning rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.trainable_parameters():
            groups.setdefault(self.lr_multipliers.get(name, 1.0), []).append(parameter)
        return [
            {"params": parameters, "lr": learning_rate * multiplier}
            for multiplier, parameters in groups.items()
        ]

    def kept_factors(self) -> frozenset[str]:
        """Returns the tensors that a fraction of the trained change leaves as they are trained."""
        modules = self.network.named_modules()
        adapters = {name: part for name, part in modules if isinstance(part, AdapterModule)}
        names = set()
        for name, adapter in adapters.items():
            names |= {f"{name}.{factor}" for factor in adapter.kept_factors}
        return frozenset(names)

    def prune(self, adapters: Iterable[str]) -> None:
        """Removes adapters for good: they have no effect, are not trained, and are not saved.

        Args:
            adapters: Module names, as returned by `add_delta` and `add_branch`.
        """
        for name in adapters:
            self.network.set_submodule(name, nn.Identity())

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the tensors of the adapter file by name, as copies on the CPU, on every rank.

        The shapes are those of the unsharded tensors.
        """
        return {
            name: gather_full_tensor(tensor.detach()).cpu().clone().contiguous()
            for name, tensor in self._saved_tensors().items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads the tensors of an adapter file; prunable adapters without tensors are pruned.

        Args:
            tensors: The result of `state_dict` of the same method on the same base.

        Raises:
            FseftError: Names or shapes are not those that this method saves.
        """
        self.prune(name for name in self.prunable if not _any_below(name, tensors))
        targets = self._saved_tensors()
        shared = targets.keys() & tensors.keys()
        misfits = targets.keys() ^ tensors.keys()
        misfits |= {name for name in shared if targets[name].shape != tensors[name].shape}
        if misfits:
            raise FseftError(
                f"the adapter does not fit the network: {len(misfits)} tensors differ "
                f"(first: {min(misfits)})",
                hint="Use the backbone, method and plugin version that it was trained with.",
            )
        _copy_into(
            targets, {name: distribute_like(tensors[name], targets[name]) for name in targets}
        )

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Switches all adapters off: within the context the output is the base's, bit for bit."""
        adapters = {m: m.enabled for m in self.network.modules() if isinstance(m, AdapterModule)}
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        adapted = {name: tensors[name].detach().clone() for name in self.base_snapshot}
        try:
            _copy_into(tensors, self.base_snapshot)
            for adapter in adapters:
                adapter.enabled = False
            yield
        finally:
            _copy_into(tensors, adapted)
            for adapter, enabled in adapters.items():
                adapter.enabled = enabled

    def merge(self) -> nn.Module:
        """Folds all weight deltas into the weights; branches, which depend on the input, stay.

        Returns:
            The network, changed in place; without branches it has the tensor names of the base.
        """
        for module in list(self.network.modules()):
            if parametrize.is_parametrized(module):
                unshare_class(module)
                for tensor in list(module.parametrizations):  # type: ignore[arg-type]
                    parametrize.remove_parametrizations(
                        module, str(tensor), leave_parametrized=True
                    )
        return self.network

    def _adapter_tensors(self) -> set[str]:
        """Returns the names of all parameters and saved buffers inside adapters."""
        return {
            f"{name}.{tensor}"
            for name, module in self.network.named_modules()
            if isinstance(module, AdapterModule)
            for tensor in module.state_dict()
        }

    def _saved_tensors(self) -> dict[str, Tensor]:
        """Returns the live tensors that an adapter file holds, by name."""
        added = self._adapter_tensors()
        constants = self.always_saved | self.saved_constants
        parameters = self.network.named_parameters()
        return {
            **{name: p for name, p in parameters if p.requires_grad or name in constants},
            **{name: buffer for name, buffer in self.network.named_buffers() if name in added},
            **self._batch_statistics(),
            **self.extra_state,
        }

    def _batch_statistics(self) -> dict[str, Tensor]:
        """Returns the buffers that training updates, by name; none while the backbone is frozen."""
        return dict(self.network.named_buffers()) if self.train_mode else {}


def head_names(architecture: Architecture, network: nn.Module) -> list[str]:
    """Returns the names of the modules that classify the features; one in all architectures.

    Args:
        architecture: Describes the layers of the network.
        network: The network.

    Raises:
        PluginError: The architecture's `head` is not a module of the network.
    """
    head = architecture.head(network)
    names = [name for name, module in network.named_modules() if module is head]
    if not names:
        raise PluginError(
            f"{type(architecture).__name__}.head() returned a module that is not in the network"
        )
    return names


def unshare_class(module: nn.Module) -> None:
    """Gives a parametrized module a class that no other module has.

    `parametrize` replaces the class of a module by a generated one with a property for each
    parametrized tensor. Deep copies of the module share that class, and removing the
    parametrization deletes the property from it: merging one copy of a network would break all
    others.
    """
    generated = type(module)
    module.__class__ = type(generated.__name__, generated.__bases__, dict(vars(generated)))


def _prefixes(name: str) -> Iterator[str]:
    """Yields `a`, `a.b` and `a.b.c` for `a.b.c`: the modules around a parameter, and itself."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        yield ".".join(parts[:end])


def _any_below(module: str, tensors: Iterable[str]) -> bool:
    """Returns whether any tensor belongs to a module."""
    return any(name.startswith(f"{module}.") for name in tensors)


@torch.no_grad()
def _copy_into(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrites tensors in place, by name."""
    for name, value in values.items():
        targets[name].copy_(value)
