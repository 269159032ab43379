"""Registration of the architecture and the models; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import ArchitectureSpec, FoundationModelSpec, hookimpl
from fseft_brainchop.config import MeshNetConfig
from fseft_brainchop.models import SPECS

if TYPE_CHECKING:
    from collections.abc import Iterable

FSEFT_API = 1


@hookimpl
def fseft_architectures() -> Iterable[ArchitectureSpec]:
    """Returns the architecture."""
    return [
        ArchitectureSpec(
            name="meshnet",
            factory="fseft_brainchop.meshnet:MeshNet",
            summary="MeshNet: dilated convolutions at full resolution, under 0.2 M parameters",
            config=MeshNetConfig,
            reference="Fedorov et al. 2017, arXiv:1612.00940",
        )
    ]


@hookimpl
def fseft_foundation_models() -> Iterable[FoundationModelSpec]:
    """Returns the pre-trained networks."""
    return SPECS
