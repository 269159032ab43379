"""The built-ins, registered through the same hooks as anybody's; imports no torch."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from fseft.plugin import (
    ArchitectureSpec,
    AugmentationSpec,
    FoundationModelSpec,
    LossSpec,
    MethodSpec,
    MetricSpec,
    OptimizerSpec,
    ReaderSpec,
    ReporterSpec,
    ScheduleSpec,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

ARCHITECTURES = (
    "dynunet",
    "mednext",
    "resunet",
    "segresnet",
    "segresnet_ds",
    "suprem_unet",
    "swinunetr",
    "unet",
    "vista3d",
)
METHODS = (
    "adaptformer",
    "affine",
    "bias",
    "cnn_adapter",
    "compacter",
    "decoder_only",
    "full",
    "ia3",
    "linear_probe",
    "lora",
    "scratch",
    "spatial_adapter",
    "ssf",
    "zero_shot",
)
METRICS = ("dice", "nsd", "hd95", "assd", "volume_difference")
MODELS = (
    "btcv",
    "clipdriven",
    "ctfm",
    "dae",
    "fseft",
    "monai_wholebody",
    "phantom_tiny",
    "self_supervised",
    "suprem_segresnet",
    "suprem_swinunetr",
    "suprem_unet",
    "vista3d",
    "voco",
)


def _specs(package: str, modules: tuple[str, ...]) -> list[Any]:
    """The `SPEC` of each module, or its `SPECS`; these modules import no torch at their top."""
    found = [importlib.import_module(f"fseft.builtin.{package}.{name}") for name in modules]
    return [spec for module in found for spec in getattr(module, "SPECS", None) or (module.SPEC,)]


def _specs_in(package: str) -> list[Any]:
    """Return the `SPEC` of each module of a package; a new file is found without an entry here."""
    folder = importlib.import_module(f"fseft.builtin.{package}")
    return _specs(package, tuple(module.name for module in pkgutil.iter_modules(folder.__path__)))


@hookimpl
def fseft_losses() -> Iterable[LossSpec]:
    """Return the built-in losses."""
    return _specs_in("losses")


@hookimpl
def fseft_augmentations() -> Iterable[AugmentationSpec]:
    """Return the built-in augmentations."""
    return _specs_in("augmentations")


@hookimpl
def fseft_schedules() -> Iterable[ScheduleSpec]:
    """Return the built-in learning-rate schedules."""
    return _specs_in("schedules")


@hookimpl
def fseft_optimizers() -> Iterable[OptimizerSpec]:
    """Return the built-in optimizers."""
    return _specs_in("optimizers")


@hookimpl
def fseft_architectures() -> Iterable[ArchitectureSpec]:
    """Networks with role maps."""
    return _specs("architectures", ARCHITECTURES)


@hookimpl
def fseft_dataset_readers() -> Iterable[ReaderSpec]:
    """Dataset layouts."""
    return [
        ReaderSpec(
            name="challenges",
            factory="fseft.builtin.readers.challenges:Reader",
            summary="BTCV, FLARE22, LiTS, KiTS, AbdomenCT-1K, CT-ORG and AbdomenCT-12organ as their owners give them",
        ),
        ReaderSpec(
            name="chaos",
            factory="fseft.builtin.readers.chaos:Reader",
            summary="CHAOS: CT or MR series in DICOM, with a PNG picture of the labels per slice",
            reference="https://chaos.grand-challenge.org",
        ),
        ReaderSpec(
            name="decathlon",
            factory="fseft.builtin.readers.decathlon:Reader",
            summary="Medical Segmentation Decathlon: dataset.json with a list of image and label pairs",
            reference="http://medicaldecathlon.com",
        ),
        ReaderSpec(
            name="folders",
            factory="fseft.builtin.readers.folders:Reader",
            summary="a folder of images beside a folder of labels with the same file names",
        ),
        ReaderSpec(
            name="masks",
            factory="fseft.builtin.readers.masks:Reader",
            summary="TotalSegmentator: a folder per case with ct.nii.gz and one mask per structure",
            reference="https://doi.org/10.5281/zenodo.6802613",
        ),
        ReaderSpec(
            name="nnunet",
            factory="fseft.builtin.readers.nnunet:Reader",
            summary="nnU-Net raw dataset: imagesTr, labelsTr and dataset.json with channel names",
            reference="https://github.com/MIC-DKFZ/nnUNet",
        ),
    ]


@hookimpl
def fseft_foundation_models() -> Iterable[FoundationModelSpec]:
    """Pre-trained networks."""
    return _specs("models", MODELS)


@hookimpl
def fseft_methods() -> Iterable[MethodSpec]:
    """Methods for few-shot adaptation."""
    return _specs("methods", METHODS)


@hookimpl
def fseft_metrics() -> Iterable[MetricSpec]:
    """Return the metrics of `fseft evaluate`."""
    return _specs("metrics", METRICS)


@hookimpl
def fseft_reporters() -> Iterable[ReporterSpec]:
    """Observers of runs."""
    return [
        ReporterSpec(
            name="jsonl",
            factory="fseft.builtin.reporters.jsonl:JsonlReporter",
            summary="one JSON line per epoch in log.jsonl of the run folder",
        )
    ]
