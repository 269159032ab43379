"""What nnU-Net v2 says about a model in its plans and dataset files: network, preprocessing and classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.schemas import Contract, Intensity

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.schemas import Modality, ModelCard

Json = Mapping[str, Any]

ARCHITECTURES = {
    "PlainConvUNet": ("plainconv", "n_conv_per_stage"),
    "ResidualEncoderUNet": ("resenc", "n_blocks_per_stage"),
}
"""nnU-Net's class -> the architecture here, and its setting for the depth of the encoder."""

LAYERS: Json = {
    "conv_op": "Conv3d",
    "norm_op": "InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "nonlin": "LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""All that nnU-Net's own planners ask for."""

ORIENTATIONS = {"NibabelIOWithReorient": "SAR"}
"""Readers that turn every image; the others leave the axes as they are in the files, in SimpleITK's order."""

PREPROCESSOR = "DefaultPreprocessor"
STATISTICS = "foreground_intensity_properties_per_channel"
STATISTICS_BEFORE = "foreground_intensity_properties_by_modality"
SETTINGS = (
    "features_per_stage",
    "kernel_sizes",
    "strides",
    "n_conv_per_stage_decoder",
    "conv_bias",
)
_UNUSED = ("n_stages", "dropout_op_kwargs")  # told by the other settings


def card(card: ModelCard, file: Path, content: object) -> ModelCard:
    """The card of a model of nnU-Net v2.

    Args:
        card: The entry's; its orientation stands where the reader turned no image.
        file: A checkpoint. `plans.json` and `dataset.json` are read from the folder above its own; without them,
            what the checkpoint has of them.
        content: What it holds.

    Raises:
        FseftError: The files are missing, not understood, or ask for what cannot be done here.
    """
    made_with = content.get("init_args") if isinstance(content, Mapping) else None
    if not isinstance(made_with, Mapping):
        raise FseftError(
            "has no `init_args`, as checkpoints of nnU-Net v2 do", hint="Give checkpoint_final.pth."
        )
    plans = _read(file, "plans.json", made_with.get("plans"))
    dataset = _read(file, "dataset.json", made_with.get("dataset_json"))
    try:
        configuration = _configuration(plans, made_with["configuration"])
        architecture, hparams = _network(configuration)
        classes, activation = _classes(dataset["labels"])
        return card.model_copy(
            update={
                "architecture": architecture,
                "hparams": hparams,
                "classes": classes,
                "activation": activation,
                "contract": _contract(plans, configuration, dataset, card.contract.orientation),
                "datasets": card.datasets or (plans["dataset_name"],),
            }
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        cause = f"plans.json or dataset.json is not understood ({type(error).__name__}: {error})"
        raise FseftError(cause, hint="Give the files that nnU-Net v2 wrote.") from error


def _read(file: Path, name: str, copied: object) -> Json:
    path = file.absolute().parent.parent / name
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else copied
    except ValueError as error:
        raise FseftError(f"is no JSON ({error})", file=path, hint="Get it again.") from error
    if not isinstance(found, Mapping):
        raise FseftError(
            f"comes without {name}", hint="Put it in the folder above the checkpoint's."
        )
    return found


def _configuration(plans: Json, name: str) -> Json:
    """A configuration with all that it inherits."""
    found: Json = plans["configurations"][name]
    if "inherits_from" in found:
        found = {**_configuration(plans, found["inherits_from"]), **found}
    if len(found["patch_size"]) != 3:
        raise FseftError(
            f"the configuration {name} is not 3D", hint="Take 3d_fullres or 3d_lowres."
        )
    if found.get("previous_stage"):
        raise FseftError(
            f"the configuration {name} needs the result of another",
            hint="Take 3d_fullres or 3d_lowres.",
        )
    if found["preprocessor_name"] != PREPROCESSOR:
        raise FseftError(
            f"is preprocessed by {found['preprocessor_name']}",
            hint=f"Only {PREPROCESSOR} is known here.",
        )
    return found


def _network(configuration: Json) -> tuple[str, dict[str, Any]]:
    """The architecture and its settings."""
    asked: Json = configuration.get("architecture") or _early_architecture(configuration)
    kind = asked["network_class_name"].rpartition(".")[2]
    if kind not in ARCHITECTURES:
        raise FseftError(
            f"the network {kind} is not known here", hint=f"Known: {', '.join(ARCHITECTURES)}."
        )
    architecture, depth = ARCHITECTURES[kind]
    settings: Json = asked["arch_kwargs"]
    other = [
        name
        for name, value in settings.items()
        if name not in (*SETTINGS, *_UNUSED, depth)
        and (name not in LAYERS or _plain(value) != LAYERS[name])
    ]
    if other:
        raise FseftError(
            f"the network has {other[0]} {settings[other[0]]!r}",
            hint="Only nnU-Net's own layers are known.",
        )
    return architecture, {name: settings[name] for name in (*SETTINGS, depth)}


def _plain(value: object) -> object:
    """A class by its name alone."""
    return value.rpartition(".")[2] if isinstance(value, str) else value


def _early_architecture(configuration: Json) -> Json:
    """What plans said before they had an `architecture`."""
    kind = configuration["UNet_class_name"]
    depths = configuration["n_conv_per_stage_encoder"]
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    return {
        "network_class_name": kind,
        "arch_kwargs": {
            "features_per_stage": [min(base * 2**stage, most) for stage in range(len(depths))],
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            ARCHITECTURES.get(kind, ("", "depths"))[1]: depths,
        },
    }


def _classes(labels: Json) -> tuple[tuple[str, ...], str]:
    """Names in the order of the channels, and the activation: sigmoid where labels are regions that overlap."""
    labels = {name: value for name, value in labels.items() if name not in ("background", "ignore")}
    if any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        return tuple(labels), "sigmoid"
    values = {
        name: value[0] if isinstance(value, list) else value for name, value in labels.items()
    }
    return tuple(sorted(values, key=lambda name: int(values[name]))), "softmax"


def _contract(plans: Json, configuration: Json, dataset: Json, orientation: str) -> Contract:
    orientation = ORIENTATIONS.get(plans["image_reader_writer"], orientation)
    return Contract(
        orientation="".join(orientation[axis] for axis in plans["transpose_forward"]),
        spacing_mm=configuration["spacing"],
        intensity=_intensity(plans, configuration),
        channels=len(dataset.get("channel_names") or dataset["modality"]),
        patch_size=configuration["patch_size"],
    )


def _intensity(plans: Json, configuration: Json) -> dict[Modality, Intensity]:
    """The one scheme of all channels: nnU-Net's rule for CT with the numbers of the plans, or z-score."""
    schemes = configuration["normalization_schemes"]
    if any(configuration["use_mask_for_norm"]):
        raise FseftError(
            "normalises inside of a mask", hint="Only normalisation of whole images is known here."
        )
    if schemes == ["CTNormalization"]:
        measured = (plans.get(STATISTICS) or plans[STATISTICS_BEFORE])["0"]
        low, high = measured["percentile_00_5"], measured["percentile_99_5"]
        ct = Intensity(
            scheme="clip-zscore", low=low, high=high, mean=measured["mean"], std=measured["std"]
        )
        return {"ct": ct}
    if set(schemes) == {"ZScoreNormalization"}:
        return {"mr": Intensity(scheme="zscore"), "other": Intensity(scheme="zscore")}
    raise FseftError(
        f"normalises by {', '.join(schemes)}",
        hint="Known: one channel of CTNormalization, or ZScoreNormalization.",
    )
