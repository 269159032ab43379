"""The checks of an architecture, as parameters of a test."""

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
    name: str, toy: TinyNetwork, *, xfail: Mapping[str, str] | None = None
) -> list[ParameterSet]:
    """The checks of an architecture, to be called one by one.

    ```python
    @pytest.mark.parametrize("check", architecture_checks("my-network", Toy({"width": 4}, (16, 16, 16))))
    def test_my_network(check):
        check()
    ```

    Args:
        name: Its name in the registry.
        toy: A small version of it.
        xfail: Check -> why the architecture cannot keep it; it must then fail.

    Raises:
        ValueError: There is no check of a name in `xfail`.
    """
    return parameters(name, CHECKS, BuiltNetwork(name, toy), xfail)


@dataclass(frozen=True, eq=False)
class BuiltNetwork:
    """An architecture and a toy of it, ready to be checked."""

    name: str
    toy: TinyNetwork

    @cached_property
    def architecture(self) -> Architecture:
        """The architecture."""
        return get_architecture(self.name)

    def network(self) -> nn.Module:
        """The same network in each call, built from what a model card holds."""
        hparams = json.loads(json.dumps(dict(self.toy.hparams)))
        return build_network(
            self.architecture, in_channels=1, out_channels=CLASSES, hparams=hparams, seed=0
        ).eval()

    def x(self, shape: Triple | None = None, *, batch: int = 1) -> Tensor:
        """An input, of the toy's shape if no other is given."""
        return noise(shape or self.toy.shape, batch=batch)
