"""Registration of the architectures and models; imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import ArchitectureSpec, ExporterSpec, FoundationModelSpec, hookimpl
from fseft_nnunet import models
from fseft_nnunet.configs import PlainConvConfig, ResEncConfig, STUNetConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

FSEFT_API = 1


@hookimpl
def fseft_architectures() -> Iterable[ArchitectureSpec]:
    """Returns the architectures."""
    return [
        ArchitectureSpec(
            name="plainconv",
            factory="fseft_nnunet.networks:PlainConv",
            summary="PlainConvUNet of nnU-Net v2, under the names of its checkpoints",
            config=PlainConvConfig,
            reference="Isensee et al. 2021, doi:10.1038/s41592-020-01008-z",
        ),
        ArchitectureSpec(
            name="resenc",
            factory="fseft_nnunet.networks:ResEnc",
            summary="ResidualEncoderUNet of nnU-Net v2, under the names of its checkpoints",
            config=ResEncConfig,
            reference="Isensee et al. 2024, arXiv:2404.09556",
        ),
        ArchitectureSpec(
            name="stunet",
            factory="fseft_nnunet.stunet:STUNet",
            summary="STU-Net in its four sizes and others, under the names of its checkpoints",
            config=STUNetConfig,
            reference="Huang et al. 2023, arXiv:2304.06716",
        ),
    ]


@hookimpl
def fseft_foundation_models() -> Iterable[FoundationModelSpec]:
    """Returns the pre-trained networks."""
    return [models.NNUNET, models.NNSSL_RESENCL, *models.STUNETS, models.TOTALSEGMENTATOR]


@hookimpl
def fseft_exporters() -> Iterable[ExporterSpec]:
    """Returns the file format."""
    return [
        ExporterSpec(
            name="nnunet",
            factory="fseft_nnunet.export:export",
            summary="model folder of nnU-Net v2, for networks plainconv and resenc",
        )
    ]
