"""Checks of an architecture, as parameters of a test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.testing.method_harness import CLASSES, noise
from fseft.testing.network_checks import CHECKS
from fseft.testing.parameters import parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _pytest.mark import ParameterSet
    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.schemas import Triple
    from fseft.testing.tiny_networks import TinyNetwork


def architecture_checks(
    name: str, tiny: TinyNetwork, *, xfail: Mapping[str, str] | None = None
) -> list[ParameterSet]:
    """Returns the checks of an architecture, as parameters of a test that calls each.

    ```python
    TINY = TinyNetwork({"width": 4}, (16, 16, 16))

    @pytest.mark.parametrize("check", architecture_checks("my-network", TINY))
    def test_my_network(check):
        check()
    ```

    Args:
        name: Of the architecture in the registry.
        tiny: Hyper-parameters of a small version, and the shape of its input.
        xfail: Reason for each check that must fail.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    return parameters(name, CHECKS, BuiltNetwork(name, tiny), xfail)


@dataclass(frozen=True, eq=False)
class BuiltNetwork:
    """An architecture and the tiny network that it is checked on."""

    name: str
    tiny: TinyNetwork

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture."""
        return get_architecture(self.name)

    def network(self) -> nn.Module:
        """Builds the network from hyper-parameters as in a model card, with the same weights."""
        hparams = json.loads(json.dumps(dict(self.tiny.hparams)))
        return build_network(
            self.architecture, in_channels=1, out_channels=CLASSES, hparams=hparams, seed=0
        ).eval()

    def x(self, shape: Triple | None = None, *, batch: int = 1) -> Tensor:
        """Returns a random input (batch, 1, *shape).

        Args:
            shape: Voxels (i, j, k); None for the shape of the tiny network.
            batch: Number of images.
        """
        return noise(shape or self.tiny.shape, batch=batch)
