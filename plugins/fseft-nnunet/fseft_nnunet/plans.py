"""Plans and dataset files of nnU-Net v2: network, preprocessing and classes of a model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.schemas import Contract, Intensity

if TYPE_CHECKING:
    from fseft.schemas import Modality, ModelCard

Json = Mapping[str, Any]

ARCHITECTURES = {
    "PlainConvUNet": ("plainconv", "n_conv_per_stage"),
    "ResidualEncoderUNet": ("resenc", "n_blocks_per_stage"),
}
"""Architecture of fseft for each class of nnU-Net, and the name of its encoder's depth."""

LAYERS: Json = {
    "conv_op": "Conv3d",
    "norm_op": "InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "nonlin": "LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""The layers that nnU-Net's own planners choose."""

ORIENTATIONS = {"NibabelIOWithReorient": "SAR"}
"""Orientation of readers that reorient images; others keep the axes of the file."""

RAW = "nnUNet_raw"
"""Environment variable, and usual name, of the folder of nnU-Net's datasets."""
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
_UNUSED = ("n_stages", "dropout_op_kwargs")  # follow from the other settings


def card(card: ModelCard, file: Path, content: object) -> ModelCard:
    """Returns the card of a model of nnU-Net v2.

    Args:
        card: The entry's card; its orientation is used where the reader does not reorient images.
        file: A checkpoint. `plans.json` and `dataset.json` are read from the folder above its own
            folder, or from the checkpoint.
        content: Content of the checkpoint.

    Raises:
        FseftError: The files are missing or invalid, or describe an unsupported model.
    """
    init_args = content.get("init_args") if isinstance(content, Mapping) else None
    if not isinstance(init_args, Mapping):
        raise FseftError(
            "lacks `init_args`, which checkpoints of nnU-Net v2 have",
            hint="Use checkpoint_final.pth.",
        )
    plans = _read(file, "plans.json", init_args.get("plans"))
    dataset = _read(file, "dataset.json", init_args.get("dataset_json"))
    try:
        configuration = _configuration(plans, init_args["configuration"])
        architecture, hparams = _network(configuration)
        classes, activation = _classes(dataset["labels"])
        return card.model_copy(
            update={
                "architecture": architecture,
                "hparams": hparams,
                "classes": classes,
                "activation": activation,
                "writing_order": classes if activation == "sigmoid" else (),
                "contract": _contract(plans, configuration, dataset, *_axes(card, file, plans)),
                "datasets": card.datasets or (plans["dataset_name"],),
            }
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        cause = f"plans.json or dataset.json is invalid ({type(error).__name__}: {error})"
        raise FseftError(cause, hint="Use the files that nnU-Net v2 wrote.") from error


def _read(file: Path, name: str, embedded: object) -> Json:
    """Reads a JSON file of the model folder, or returns the copy in the checkpoint."""
    path = file.absolute().parent.parent / name
    content = embedded
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            cause = f"is not valid JSON ({error})"
            raise FseftError(cause, file=path, hint="Download it again.") from error
    if not isinstance(content, Mapping):
        raise FseftError(
            f"comes without {name}", hint="Put it in the folder above the checkpoint's."
        )
    return content


def _configuration(plans: Json, name: str) -> Json:
    """Returns a configuration with all that it inherits."""
    configuration: Json = plans["configurations"][name]
    if "inherits_from" in configuration:
        parent = _configuration(plans, configuration["inherits_from"])
        configuration = {**parent, **configuration}
    single_stage = "Use 3d_fullres or 3d_lowres."
    if len(configuration["patch_size"]) != 3:
        raise FseftError(f"the configuration {name} is not 3D", hint=single_stage)
    if configuration.get("previous_stage"):
        cause = f"the configuration {name} needs the result of another configuration"
        raise FseftError(cause, hint=single_stage)
    preprocessor = configuration["preprocessor_name"]
    if preprocessor != PREPROCESSOR:
        raise FseftError(
            f"is preprocessed by {preprocessor}", hint=f"Only {PREPROCESSOR} is supported."
        )
    return configuration


def _network(configuration: Json) -> tuple[str, dict[str, Any]]:
    """Returns the architecture and its hyper-parameters."""
    network: Json = configuration.get("architecture") or _early_architecture(configuration)
    kind = network["network_class_name"].rpartition(".")[2]
    if kind not in ARCHITECTURES:
        raise FseftError(
            f"the network {kind} is not supported", hint=f"Supported: {', '.join(ARCHITECTURES)}."
        )
    architecture, depth = ARCHITECTURES[kind]
    settings: Json = network["arch_kwargs"]
    for name, value in settings.items():
        if name in (*SETTINGS, *_UNUSED, depth):
            continue
        if name not in LAYERS or _plain(value) != LAYERS[name]:
            raise FseftError(
                f"the network has {name} {value!r}", hint="Only nnU-Net's own layers are supported."
            )
    return architecture, {name: settings[name] for name in (*SETTINGS, depth)}


def _plain(value: object) -> object:
    """Returns the name of a class without its module; other values as they are."""
    return value.rpartition(".")[2] if isinstance(value, str) else value


def _early_architecture(configuration: Json) -> Json:
    """Converts plans of versions without an `architecture` entry."""
    kind = configuration["UNet_class_name"]
    depths = configuration["n_conv_per_stage_encoder"]
    base = configuration["UNet_base_num_features"]
    maximum = configuration["unet_max_num_features"]
    return {
        "network_class_name": kind,
        "arch_kwargs": {
            "features_per_stage": [min(base * 2**stage, maximum) for stage in range(len(depths))],
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            ARCHITECTURES.get(kind, ("", "depths"))[1]: depths,
        },
    }


def _classes(labels: Json) -> tuple[tuple[str, ...], str]:
    """Returns the classes in the order of the channels, and the activation.

    Labels that are overlapping regions have a sigmoid activation; nnU-Net writes them in the order
    of the channels.
    """
    labels = {name: value for name, value in labels.items() if name not in ("background", "ignore")}
    if any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        return tuple(labels), "sigmoid"
    values = {
        name: value[0] if isinstance(value, list) else value for name, value in labels.items()
    }
    return tuple(sorted(values, key=lambda name: int(values[name]))), "softmax"


def _axes(card: ModelCard, file: Path, plans: Json) -> tuple[str, bool]:
    """Returns the axes of the arrays of training scans, and whether they are assumed.

    They are those of nnU-Net's reader if it reorients scans, those that the user states, or those
    of a training scan in `nnUNet_raw`, where nnU-Net keeps them.
    """
    reader = plans["image_reader_writer"]
    if reader in ORIENTATIONS:
        return ORIENTATIONS[reader], False
    if not card.contract.assumed_orientation:
        return card.contract.orientation, False
    scan = _training_scan(file, plans["dataset_name"])
    if scan is not None:
        from fseft.volume.image import read_volume

        return read_volume(scan).geometry.orientation, False
    return card.contract.orientation, True


def _training_scan(file: Path, dataset: str) -> Path | None:
    """Returns a training scan of the model, if the raw dataset is where nnU-Net expects it."""
    from fseft.volume.image_files import IMAGE_SUFFIXES

    folders = [parent / RAW for parent in file.absolute().parents]
    if RAW in os.environ:
        folders.insert(0, Path(os.environ[RAW]))
    scans = (
        scan
        for folder in folders
        for scan in sorted((folder / dataset / "imagesTr").glob("*_0000.*"))
        if scan.name.endswith(IMAGE_SUFFIXES)
    )
    return next(scans, None)


def _contract(
    plans: Json, configuration: Json, dataset: Json, orientation: str, assumed: bool
) -> Contract:
    return Contract(
        orientation="".join(orientation[axis] for axis in plans["transpose_forward"]),
        spacing_mm=configuration["spacing"],
        intensity=_intensity(plans, configuration),
        channels=len(dataset.get("channel_names") or dataset["modality"]),
        patch_size=configuration["patch_size"],
        crop="nonzero",
        clip_first="CTNormalization" in configuration["normalization_schemes"],
        interpolation="nnunet",
        padding="zero",
        assumed_orientation=assumed,
    )


def _intensity(plans: Json, configuration: Json) -> dict[Modality, Intensity]:
    """Returns the scheme of all channels: nnU-Net's CT rule with its statistics, or z-score."""
    schemes = configuration["normalization_schemes"]
    if schemes == ["CTNormalization"]:
        measured = (plans.get(STATISTICS) or plans[STATISTICS_BEFORE])["0"]
        low, high = measured["percentile_00_5"], measured["percentile_99_5"]
        ct = Intensity(
            scheme="clip-zscore", low=low, high=high, mean=measured["mean"], std=measured["std"]
        )
        return {"ct": ct}
    masks = set(configuration["use_mask_for_norm"])
    if len(masks) > 1:
        raise FseftError(
            "normalises some channels inside a mask",
            hint="Supported are models that do so in all channels, or in none.",
        )
    if set(schemes) == {"ZScoreNormalization"}:
        zscore = Intensity(scheme="zscore", region="nonzero" if masks == {True} else "crop")
        return {"mr": zscore, "other": zscore}
    raise FseftError(
        f"normalises by {', '.join(schemes)}",
        hint="Supported: one channel of CTNormalization, or ZScoreNormalization.",
    )
