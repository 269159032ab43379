"""The interface of methods, and the base class that most of them extend. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from fseft.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Generator, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture, Target
    from fseft.plugin import Config


class Method(Protocol):
    """The interface of the object that a `MethodSpec.factory` returns for its config.

    Attributes:
        config: Settings of the method, an instance of the `config` of its spec.
    """

    config: Config

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Returns the targets that the method changes or trains, without changing the network.

        Args:
            architecture: Describes the layers of the network.
            network: The network, with or without pre-trained weights.

        Raises:
            IncompatibleError: The network lacks the layers that the method requires.
        """

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Inserts adapters into the network in place and freezes everything that is not trained.

        Args:
            architecture: Describes the layers of the network.
            network: The network, with the head for the new structures in place.
            generator: Source of all random numbers; the same state must give the same adapters.
        """


class BaseMethod:
    """Base class of methods: select layers, attach an adapter to each, and freeze the rest.

    A subclass states which layers it selects (`wants`) and what it adds to each of them
    (`attach`), whose default trains the layer itself. Torch is imported inside `attach`, so that
    listing methods stays fast.

    Attributes:
        name: Name of the method, for messages.
        needs: The layers that it requires, for messages: `method 'lora' requires <needs>`.
        learning_rate: Default learning rate.
        head_lr_multiplier: Multiple of it for the head, whose new rows start untrained.
        config: Settings of the method.

    Examples:
        The method `affine` trains the scales and shifts of the norm layers:

        >>> class Affine(BaseMethod):
        ...     name, needs, learning_rate = "affine", "norm layers with parameters", 1e-2
        ...
        ...     def wants(self, target):
        ...         return target.role == "norm"
    """

    name: str = ""
    needs: str = ""
    learning_rate: float = 1e-3
    head_lr_multiplier: float = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config

    def wants(self, target: Target) -> bool:
        """Returns True for the layers that the method changes or trains.

        Raises:
            NotImplementedError: The subclass defines neither it nor `select`.
        """
        raise NotImplementedError

    def attach(self, target: Target, generator: Generator) -> list[str]:  # noqa: ARG002
        """Inserts an adapter into a selected layer.

        Args:
            target: The layer.
            generator: Source of random numbers for the initialisation.

        Returns:
            Names of the modules and parameters to train, as returned by `add_delta` and
            `add_branch`.
        """
        return [target.name]

    def lr_multipliers(self, network: nn.Module) -> Mapping[str, float]:  # noqa: ARG002
        """Returns multiples of the learning rate for some parameters, by name in the network.

        Args:
            network: The network with all adapters in place.
        """
        return {}

    def adapted_type(self) -> type[AdaptedNetwork]:
        """Returns the class of the adapted network, such as a subclass with training hooks."""
        from fseft.learn.adapters.adapted_network import AdaptedNetwork

        return AdaptedNetwork

    def select(self, architecture: Architecture, network: nn.Module) -> list[Target]:
        """Returns the layers that the method `wants`.

        Args:
            architecture: Describes the layers of the network.
            network: The network, which is not changed.

        Raises:
            IncompatibleError: The network has no such layer.
        """
        targets = [target for target in architecture.targets(network) if self.wants(target)]
        return require_targets(targets, self.needs, self.name)

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> AdaptedNetwork:
        """Attaches an adapter to each selected layer in the order of `select`; freezes the rest.

        Args:
            architecture: Describes the layers of the network.
            network: The network; it is changed in place.
            generator: Source of random numbers for the initialisation.
        """
        trained: list[str] = []
        for target in self.select(architecture, network):
            trained += self.attach(target, generator)
        return self.adapted_type().freeze_except(
            trained,
            architecture,
            network,
            learning_rate=self.learning_rate,
            head_lr_multiplier=self.head_lr_multiplier,
            lr_multipliers=self.lr_multipliers(network),
        )


def require_targets(targets: list[Target], needs: str, method: str) -> list[Target]:
    """Returns the targets if there is at least one.

    Args:
        targets: Layers that a method selected.
        needs: Description of the layers that it requires, for the message.
        method: Name of the method.

    Raises:
        IncompatibleError: The list is empty.
    """
    if not targets:
        raise IncompatibleError(
            f"the method {method!r} requires {needs}, which this network lacks",
            hint="Choose another method or model, or other layers if they can be set: "
            f"`fseft show method {method}`.",
        )
    return targets
