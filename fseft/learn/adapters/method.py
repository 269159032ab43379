"""What a method is, and what it leaves behind: an adapted network that knows its own trained tensors."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.utils import parametrize

from fseft.errors import FseftError, IncompatibleError, PluginError
from fseft.learn.adapters.adapter_layers import Dropped
from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.training.distributed import distribute_like, gather_full_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from torch import Generator, Tensor, nn

    from fseft.learn.networks.roles import Architecture, Target
    from fseft.learn.training.progress import Epoch
    from fseft.learn.training.voxel_features import VoxelSample
    from fseft.plugin import Config


class Method(Protocol):
    """What a `MethodSpec.factory` gives when called with its config."""

    config: Config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """The targets that the method works on; pure.

        Raises:
            FseftError: The architecture has no module of a role that the method needs.
        """

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Change the network in place, the same way for the same generator; the head is already in place."""


@dataclass
class AdaptedNetwork:
    """A network under adaptation.

    Attributes:
        network: The module to call; its parameters require a gradient where they are trained.
        learning_rate: Default rate of everything that is trained.
        rates: Multiples of it for some tensors, by name (LoRA+).
        train_mode: Whether dropout and batch statistics are on while training; a frozen backbone has them off.
        kept: Tensors that are saved although they are not trained (the head of `zero-shot`).
        originals: The trained base tensors, and the batch statistics where they are on, as they were before training.
        optional: Additions to the network, by name, that may be dropped: an adapter that lacks them comes back without.
        records: Tensors of the method that belong to no layer, such as what it has measured; saved with the others.
    """

    network: nn.Module
    learning_rate: float
    rates: dict[str, float] = field(default_factory=dict)
    train_mode: bool = False
    kept: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    originals: dict[str, Tensor] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    records: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def freeze_except(
        cls,
        trained: Iterable[str],
        architecture: Architecture,
        network: nn.Module,
        *,
        learning_rate: float,
        head_ratio: float = 1.0,
        rates: Mapping[str, float] | None = None,
    ) -> AdaptedNetwork:
        """Freeze a network, but for these modules and parameters, and the head.

        What was added to the network with `requires_grad=False` is saved and never trained.

        Args:
            trained: Names of modules and of parameters.
            architecture: Knows the head.
            network: Changed in place.
            learning_rate: Default rate of everything that is trained.
            head_ratio: Multiple of it for the head: new rows start from nothing, the body does not.
            rates: Multiples of it for some tensors, by name.
        """
        adapted = cls(network, learning_rate, rates=dict(rates or {}))
        added = adapted._added()
        fixed = (
            name for name, p in network.named_parameters() if name in added and not p.requires_grad
        )
        adapted.fixed = frozenset(fixed)
        network.requires_grad_(False)
        adapted.unfreeze(trained)
        adapted.unfreeze(head_names(architecture, network), rate=head_ratio)
        return adapted

    def unfreeze(self, names: Iterable[str], *, rate: float | None = None) -> None:
        """Unfreeze modules and parameters, at a multiple of the learning rate where none was set for them before."""
        chosen = set(names)
        for name, parameter in self.network.named_parameters():
            parts = name.split(".")
            if name not in self.fixed and any(
                ".".join(parts[:end]) in chosen for end in range(1, len(parts) + 1)
            ):
                parameter.requires_grad_(True)
                if rate is not None:
                    self.rates.setdefault(name, rate)

    def snapshot_base_weights(self) -> None:
        """Keep the base tensors that training changes as they are now, so that `disabled` can bring them back."""
        added = self._added()
        changing = {**dict(self.trained()), **self._statistics()}
        self.originals = {
            n: tensor.detach().clone() for n, tensor in changing.items() if n not in added
        }

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Exactly what training changes, by name."""
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]

    def train(self) -> None:
        """Put the network into the mode of training; a frozen backbone is evaluated even then."""
        self.network.train(self.train_mode)

    def param_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Optimiser groups; one per distinct rate."""
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.trained():
            groups.setdefault(self.rates.get(name, 1.0), []).append(parameter)
        return [{"params": params, "lr": learning_rate * rate} for rate, params in groups.items()]

    def calibrate(self, batches: Iterator[Tensor]) -> None:
        """Data-driven initialisation; most methods have none."""

    def solve(self, voxels: VoxelSample) -> float | None:  # noqa: ARG002
        """Find what is trained at once, on sampled voxels, and give the loss; most methods are trained by steps."""
        return None

    def regularizer(self) -> Tensor | None:
        """A term added to the loss; most methods have none."""
        return None

    def on_optimizer_step(self, step: int, total: int, optimizer: torch.optim.Optimizer) -> None:
        """Called after each optimiser step; most methods do nothing.

        Args:
            step: How many steps are done.
            total: How many there will be, if the clock or a plateau ends training no earlier.
            optimizer: Knows the rate of each tensor at this step, as `lr` of its group.
        """

    def training_state(self) -> dict[str, Tensor]:
        """What a training that was cut off needs besides `state_dict` and the optimiser's; mostly nothing."""
        return {}

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `training_state` gave."""

    def held_out(self, epoch: int, cases: int) -> Collection[int]:  # noqa: ARG002
        """Support cases, by index, that the steps of an epoch do not draw; most methods hold none out.

        Asked before each step on crops; the answer may depend on what audits found.

        Args:
            epoch: Its number, from one.
            cases: k. Not all of them can be held out.
        """
        return ()

    def on_epoch_validation(
        self, epoch: Epoch, cases: int, crops_of: Callable[[int, int], tuple[Tensor, Tensor]]
    ) -> None:
        """Called after each epoch on crops, without gradients, in evaluation mode; most methods do nothing.

        Args:
            epoch: What is done.
            cases: k.
            crops_of: `crops_of(case, count)` gives images (count, C, i, j, k) and labels (count, i, j, k), where 0 is
                background: crops around the structures of a support case, not augmented, others after each epoch.
        """

    def plateau_losses(self, losses: Sequence[float]) -> Sequence[float]:
        """The epochs whose losses may tell of a plateau: none, as long as what is trained is still to change."""
        return losses

    def finish(self) -> None:
        """Called when training is over, before the adapter is written; most methods do nothing."""

    def notes(self) -> tuple[str, ...]:
        """What the user should know of the result, in lines: printed, and kept in `run.json`."""
        return ()

    def drop(self, additions: Iterable[str]) -> None:
        """Take additions out for good: they change nothing, are not trained, and weigh nothing in the file."""
        for name in additions:
            self.network.set_submodule(name, Dropped())

    def _added(self) -> set[str]:
        """The tensors that the method put into the network."""
        modules = self.network.named_modules()
        added = {
            name: module.state_dict()
            for name, module in modules
            if isinstance(module, AdapterModule)
        }
        return {f"{name}.{inner}" for name, tensors in added.items() for inner in tensors}

    def _saved(self) -> dict[str, Tensor]:
        """What is trained or kept, the method's buffers and records, and the batch statistics where they are on."""
        added = self._added()
        saved: dict[str, Tensor] = {
            name: p
            for name, p in self.network.named_parameters()
            if p.requires_grad or name in self.kept | self.fixed
        }
        own = {name: buffer for name, buffer in self.network.named_buffers() if name in added}
        return {**saved, **own, **self._statistics(), **self.records}

    def _statistics(self) -> dict[str, Tensor]:
        """The batch statistics where they are on."""
        return dict(self.network.named_buffers()) if self.train_mode else {}

    def state_dict(self) -> dict[str, Tensor]:
        """The trained and kept tensors only: what the adapter file holds."""
        return {
            name: gather_full_tensor(p.detach()).cpu().clone().contiguous()
            for name, p in self._saved().items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Put trained tensors back, and drop what may be dropped and has none.

        Raises:
            FseftError: The names or shapes are not those that this method trains.
        """
        self.drop(
            [
                name
                for name in self.optional
                if not any(tensor.startswith(f"{name}.") for tensor in tensors)
            ]
        )
        parameters = self._saved()
        wrong = parameters.keys() ^ tensors.keys()
        wrong |= {
            n for n in parameters.keys() & tensors.keys() if parameters[n].shape != tensors[n].shape
        }
        if wrong:
            raise FseftError(
                f"the adapter does not fit the network: {len(wrong)} tensors differ (first: {min(wrong)})",
                hint="Use the backbone, method and plugin version that made it.",
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(distribute_like(tensors[name], parameter))

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base behaviour, bit for bit, while the context lasts."""
        deltas = {m: m.enabled for m in self.network.modules() if isinstance(m, AdapterModule)}
        tensors = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        adapted = {name: tensors[name].detach().clone() for name in self.originals}
        try:
            self._set(tensors, self.originals)
            for delta in deltas:
                delta.enabled = False
            yield
        finally:
            self._set(tensors, adapted)
            for delta, enabled in deltas.items():
                delta.enabled = enabled

    @staticmethod
    def _set(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                tensors[name].copy_(value)

    def merge(self) -> nn.Module:
        """Fold the deltas into the weights, under the base's names; branches stay where they are."""
        for module in list(self.network.modules()):
            if parametrize.is_parametrized(module):
                made = type(
                    module
                )  # by parametrize, and shared with copies of the network, which must stay whole
                module.__class__ = type(made.__name__, made.__bases__, dict(vars(made)))
                for tensor in list(module.parametrizations):  # type: ignore[arg-type]
                    parametrize.remove_parametrizations(
                        module, str(tensor), leave_parametrized=True
                    )
        return self.network


def head_names(architecture: Architecture, network: nn.Module) -> list[str]:
    """The modules that classify the features: one, in all networks so far."""
    head = architecture.head(network)
    names = [name for name, module in network.named_modules() if module is head]
    if not names:
        raise PluginError(
            f"{type(architecture).__name__}.head() returned a module that is not in the network"
        )
    return names


def require_targets(targets: list[Target], what: str, method: str) -> list[Target]:
    """The targets, or a plain word that the architecture has none.

    Raises:
        MisfitError: There are none.
    """
    if not targets:
        raise IncompatibleError(
            f"the method {method!r} needs {what}, which this architecture has not",
            hint=f"Choose another method or model, or other layers if it can be set: `fseft show method {method}`.",
        )
    return targets
