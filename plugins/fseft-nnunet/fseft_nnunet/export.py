"""The exporter `nnunet`: a model folder that `nnUNetv2_predict_from_modelfolder` reads."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft_nnunet.configs import PlainConvConfig, ResEncConfig
from fseft_nnunet.plans import ARCHITECTURES, LAYERS, ORIENTATIONS, PREPROCESSOR, STATISTICS

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.schemas import Intensity, Manifest, Preprocessing

logger = logging.getLogger(f"fseft.{__name__}")

CONFIGURATION, TRAINER, PLANS = "3d_fullres", "nnUNetTrainer", "nnUNetPlans"
_REORIENTING_READER = "NibabelIOWithReorient"
_MODULES = {
    "PlainConvUNet": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "ResidualEncoderUNet": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
}
_LAYER_CLASSES = {
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "nonlin": "torch.nn.LeakyReLU",
}
_IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]


def export(network: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Writes `plans.json`, `dataset.json` and `fold_0/checkpoint_final.pth`.

    nnU-Net numbers structures 1, 2, ... in their order. It reads files in RAS orientation, unless
    the network has other axes: then scans must be stored with these.

    Args:
        network: The merged network in evaluation mode.
        manifest: Manifest of the adapter.
        folder: An empty folder.

    Raises:
        FseftError: nnU-Net v2 cannot express network or preprocessing.
    """
    import torch

    if manifest.writing_order:
        raise FseftError(
            "the export of overlapping structures as regions of nnU-Net is not supported",
            hint="Use onnx, torchscript or monai-bundle.",
        )
    if manifest.preprocessing.channel_mode == "mean":
        raise FseftError(
            "nnU-Net does not average the channels of a scan",
            hint="Use onnx or torchscript, or adapt with all channels.",
        )
    if differences := _differences(manifest.preprocessing):
        logger.warning("nnU-Net preprocesses scans differently: %s", "; ".join(differences))
    weights = _full_state_dict(network, manifest)
    plans, dataset = _plans(manifest), _dataset(manifest)
    checkpoint = {
        "network_weights": weights,
        "trainer_name": TRAINER,
        "init_args": {
            "plans": plans,
            "configuration": CONFIGURATION,
            "fold": 0,
            "dataset_json": dataset,
        },
        "inference_allowed_mirroring_axes": (0, 1, 2) if manifest.mirror else None,
    }
    (folder / "fold_0").mkdir()
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    for name, document in (("plans.json", plans), ("dataset.json", dataset)):
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")


def _full_state_dict(network: nn.Module, manifest: Manifest) -> dict[str, Tensor]:
    """Returns the weights under all names that nnU-Net's network has.

    Its coarse heads, which only deep supervision uses, are zero.
    """
    import dynamic_network_architectures.architectures.unet as unets

    from fseft_nnunet.networks import network_settings, single_head

    name = _network_class(manifest)
    settings = network_settings(_config(manifest), 1 + len(manifest.labels))
    channels = manifest.preprocessing.network_channels
    full = getattr(unets, name)(channels, **settings, deep_supervision=False)
    names = set(single_head(getattr(unets, name)(channels, **settings)).state_dict())
    weights = network.state_dict()
    if added := sorted(weights.keys() - names):
        raise FseftError(
            f"the method {manifest.method.name!r} adds layers ({added[0]}) that nnU-Net lacks",
            hint="Export adapters of methods that merge into the weights, such as lora and full.",
        )
    for module in full.decoder.seg_layers[:-1]:
        module.weight.data.zero_()
        module.bias.data.zero_()
    full.load_state_dict(weights, strict=False)  # the other names share the modules of these
    state: dict[str, Tensor] = full.state_dict()
    return state


def _network_class(manifest: Manifest) -> str:
    for name, (architecture, _) in ARCHITECTURES.items():
        if architecture == manifest.architecture:
            return name
    known = " and ".join(architecture for architecture, _ in ARCHITECTURES.values())
    raise FseftError(
        f"nnU-Net cannot express the architecture {manifest.architecture!r}",
        hint=f"It can express {known}; onnx, torchscript and monai-bundle take any.",
    )


def _config(manifest: Manifest) -> PlainConvConfig | ResEncConfig:
    is_residual = _network_class(manifest) == "ResidualEncoderUNet"
    config = ResEncConfig if is_residual else PlainConvConfig
    return config.model_validate_json(json.dumps(manifest.hparams))


def _plans(manifest: Manifest) -> dict[str, Any]:
    preprocessing = manifest.preprocessing
    reader, axes = _reader(preprocessing.orientation)
    # Only planning and training need the median shape.
    shape = list(preprocessing.patch_size)
    schemes = [_scheme(intensity) for intensity in preprocessing.intensity]
    return {
        "dataset_name": _dataset_name(manifest),
        "plans_name": PLANS,
        "original_median_spacing_after_transp": list(preprocessing.spacing_mm),
        "original_median_shape_after_transp": shape,
        "image_reader_writer": reader,
        "transpose_forward": axes,
        "transpose_backward": [axes.index(axis) for axis in range(3)],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        STATISTICS: {
            str(channel): _statistics(intensity)
            for channel, intensity in enumerate(preprocessing.intensity)
        },
        "configurations": {
            CONFIGURATION: {
                "data_identifier": f"{PLANS}_{CONFIGURATION}",
                "preprocessor_name": PREPROCESSOR,
                "batch_size": 2,
                "patch_size": shape,
                "median_image_size_in_voxels": shape,
                "spacing": list(preprocessing.spacing_mm),
                "normalization_schemes": schemes,
                "use_mask_for_norm": [
                    intensity.region == "nonzero" for intensity in preprocessing.intensity
                ],
                **_resampling(),
                "batch_dice": True,
                "architecture": _architecture(manifest),
            }
        },
    }


def _differences(preprocessing: Preprocessing) -> list[str]:
    """Returns how the preprocessing of nnU-Net differs from that of the network, in a few words."""
    is_clipped = any(
        "clip" in item.scheme or item.scheme == "window" for item in preprocessing.intensity
    )
    found = {
        "it crops to nonzero voxels": preprocessing.crop != "nonzero",
        "it clips before resampling": is_clipped and not preprocessing.clip_first,
        "it resamples by cubic splines": preprocessing.interpolation == "linear",
        "it keeps the field of view": preprocessing.alignment != "edges",
        "it pads with 0 after normalisation": preprocessing.padding != "zero",
        "it predicts in windows of the patch size": preprocessing.window_size is not None,
        "it takes the z-score before resampling": any(
            item.region == "resampled" for item in preprocessing.intensity
        ),
    }
    return [text for text, differs in found.items() if differs]


def _reader(orientation: str) -> tuple[str, list[int]]:
    """Returns nnU-Net's reader, and the order of its axes that the network expects."""
    reoriented = ORIENTATIONS[_REORIENTING_READER]
    if set(orientation) == set(reoriented):
        return _REORIENTING_READER, [reoriented.index(letter) for letter in orientation]
    return "SimpleITKIO", [0, 1, 2]


def _scheme(intensity: Intensity) -> str:
    if intensity.scheme == "zscore":
        return "ZScoreNormalization"
    if intensity.scheme in ("window", "clip-zscore"):
        return "CTNormalization"
    raise FseftError(
        f"nnU-Net has no normalisation to {intensity.describe()}",
        hint="Use onnx, torchscript or monai-bundle.",
    )


def _statistics(intensity: Intensity) -> dict[str, float]:
    """Returns the numbers of CTNormalization: it clips, subtracts the mean and divides by the SD.

    A window to [0, 1] is the same with its lower limit as mean and its width as SD.
    """
    if intensity.scheme == "zscore":
        return {}
    low, high = float(intensity.low or 0), float(intensity.high or 0)
    is_window = intensity.scheme == "window"
    mean = low if is_window else float(intensity.mean or 0)
    std = high - low if is_window else float(intensity.std or 1)
    limits = {"percentile_00_5": low, "percentile_99_5": high, "min": low, "max": high}
    return {"mean": mean, "std": std, "median": mean, **limits}


def _resampling() -> dict[str, Any]:
    """Returns the resampling of images and probabilities, as nnU-Net's planners set it."""
    function = "resample_data_or_seg_to_shape"
    settings = {
        "data": {"is_seg": False, "order": 3},
        "seg": {"is_seg": True, "order": 1},
        "probabilities": {"is_seg": False, "order": 1},
    }
    resampling: dict[str, Any] = {}
    for kind, order in settings.items():
        resampling[f"resampling_fn_{kind}"] = function
        resampling[f"resampling_fn_{kind}_kwargs"] = {
            **order,
            "order_z": 0,
            "force_separate_z": None,
        }
    return resampling


def _architecture(manifest: Manifest) -> dict[str, Any]:
    settings = _config(manifest).model_dump(mode="json")
    return {
        "network_class_name": _MODULES[_network_class(manifest)],
        "arch_kwargs": {
            "n_stages": len(settings["features_per_stage"]),
            **settings,
            **LAYERS,
            **_LAYER_CLASSES,
            "dropout_op_kwargs": None,
        },
        "_kw_requires_import": _IMPORTED,
    }


def _dataset(manifest: Manifest) -> dict[str, Any]:
    structures = {name: value for value, name in enumerate(manifest.labels, start=1)}
    channels = manifest.required_channels
    return {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **structures},
        "numTraining": len(manifest.support),
        "file_ending": ".nii.gz",
        "name": _dataset_name(manifest),
        "licence": manifest.licence,
    }


def _dataset_name(manifest: Manifest) -> str:
    name = "".join(part for part in manifest.dataset if part.isalnum() or part in "-_")
    return name if name.startswith("Dataset") else f"Dataset999_{name or 'fseft'}"
