"""The exporter `monai-bundle`: network, preprocessing and inference as a MONAI bundle."""

from __future__ import annotations

import json
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.plugin import ExporterSpec
from fseft.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from fseft.schemas import Intensity, Manifest, Preprocessing

logger = logging.getLogger(__name__)

SPEC = ExporterSpec(
    name="monai-bundle",
    factory="fseft.builtin.exporters.monai_bundle:export",
    summary="bundle that `python -m monai.bundle run` reads without fseft",
    reference="MONAI Bundle specification, https://docs.monai.io/en/stable/bundle.html",
)
OVERLAP = 0.5
_README = """\
# {title}

From the folder of this bundle, segment all `*.nii.gz` of a folder (`pip install fire nibabel`):

```
python -m monai.bundle run --config_file configs/inference.json \\
  --dataset_dir SCANS --output_dir SEGMENTED
```

`../model_card.md` describes data, licence and limits.
"""


def export(network: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Writes `configs/`, `models/model.ts` and `docs/README.md`.

    Args:
        network: The merged network in evaluation mode.
        manifest: Manifest of the adapter.
        folder: An empty folder.

    Raises:
        FseftError: MONAI's transforms cannot express the preprocessing, or the traced network
            computes other outputs.
    """
    from fseft.builtin.exporters.torchscript import write_traced

    inference = _inference(manifest)
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir()
    write_traced(network, manifest, folder / "models" / "model.ts")
    for name, document in (("metadata", _metadata(manifest)), ("inference", inference)):
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (folder / "configs" / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
    readme = _README.format(title=", ".join(manifest.labels))
    (folder / "docs" / "README.md").write_text(readme, encoding="utf-8")


def _inference(manifest: Manifest) -> dict[str, Any]:
    """Returns the configuration of the program `run`."""
    window = list(manifest.preprocessing.patch_size)
    if manifest.preprocessing.window_size is not None:
        window = [-1, -1, -1]  # the whole scan
    return {
        "imports": [
            "$import functools",
            "$import glob",
            "$import numpy as np",
            "$import torch",
            "$import warnings",
        ],
        # MONAI warns of optional DICOM readers, and of an option that the transforms do not need.
        "initialize": ["$warnings.filterwarnings('ignore', module='monai')"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/segmented'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "files": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "network": "$torch.jit.load(@bundle_root + '/models/model.ts', @device).eval()",
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(manifest)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': file} for file in @files]",
            "transform": "@preprocessing",
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": window,
            "overlap": OVERLAP,
            "mode": "gaussian",
        },
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(manifest)},
        "segment": "$lambda image: @inferer(image[None].to(@device), @network)[0].cpu()",
        "save": "$lambda item: @postprocessing({**item, 'pred': @segment(item['image'])})",
        "run": ["$[torch.no_grad()(@save)(item) for item in @dataset]"],
    }


def _preprocessing(manifest: Manifest) -> list[dict[str, Any]]:
    """Returns MONAI's transforms from a file to the input of the network."""
    if len(manifest.channels) > 1:
        raise FseftError(
            "a MONAI bundle of a network with several channels is not supported",
            hint="Use onnx or torchscript.",
        )
    preprocessing = manifest.preprocessing
    if preprocessing.interpolation == "nnunet":
        logger.warning(
            "MONAI resamples scans with thick slices differently: nnU-Net takes the nearest "
            "neighbour across slices"
        )
    scaling = _scaling(preprocessing.intensity[0])
    spacing = {
        "_target_": "Spacingd",
        "pixdim": list(preprocessing.spacing_mm),
        "mode": "bilinear" if preprocessing.interpolation == "linear" else 3,
        "padding_mode": "border",
        "scale_extent": preprocessing.alignment == "edges",
    }
    transforms: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "reader": "NibabelReader"},
        {"_target_": "EnsureChannelFirstd"},
        # Without labels, MONAI warns that their default has changed.
        {"_target_": "Orientationd", "axcodes": preprocessing.orientation, "labels": None},
        *_crop(preprocessing),
        *([scaling, spacing] if _scales_first(preprocessing) else [spacing, scaling]),
        *_padding_to_patch(preprocessing, scaling),
        {"_target_": "EnsureTyped", "dtype": "$torch.float32"},
    ]
    return [{**transform, "keys": "image"} for transform in transforms]


def _crop(preprocessing: Preprocessing) -> list[dict[str, Any]]:
    air = "image > -500" if preprocessing.modality == "ct" else "image > image.min()"
    threshold = f"{preprocessing.crop_threshold:g} * (image.max() - image.min())"
    head = f"image - image.min() > {threshold}"
    kept = {"body": air, "nonzero": "image != 0", "head": head}
    if preprocessing.crop == "head" and not preprocessing.intensity[0].maps_extremes:
        raise FseftError(
            "a MONAI bundle cannot crop to the head by percentiles",
            hint="Use onnx or torchscript.",
        )
    if preprocessing.crop not in kept:
        return []
    selection = f"$lambda image: {kept[preprocessing.crop]}"
    crop = {"_target_": "CropForegroundd", "source_key": "image", "select_fn": selection}
    margin = preprocessing.crop_margin_voxels
    return [{**crop, "margin": margin, "allow_smaller": True}]


def _scales_first(preprocessing: Preprocessing) -> bool:
    """Whether intensities are scaled before resampling; the order matters for clipping only."""
    (intensity,) = preprocessing.intensity
    if intensity.scheme in ("window", "clip-zscore"):
        return preprocessing.clip_first
    return intensity.region != "resampled"


def _scaling(intensity: Intensity) -> dict[str, Any]:
    if intensity.scheme == "zscore":
        return {"_target_": "NormalizeIntensityd", "nonzero": intensity.region == "nonzero"}
    if intensity.scheme == "minmax":
        return {"_target_": "ScaleIntensityd", "minv": -1.0, "maxv": 1.0}
    if intensity.maps_extremes:
        return {"_target_": "ScaleIntensityd", "minv": 0.0, "maxv": 1.0}
    if intensity.percentiles:
        lower, upper = intensity.percentiles
        scale = {"lower": lower, "upper": upper, "b_min": 0.0, "b_max": 1.0, "clip": False}
        return {"_target_": "ScaleIntensityRangePercentilesd", **scale}
    low, high = float(intensity.low or 0), float(intensity.high or 0)
    is_window = intensity.scheme == "window"
    mean = low if is_window else float(intensity.mean or 0)
    std = high - low if is_window else float(intensity.std or 1)
    limits = {"b_min": (low - mean) / std, "b_max": (high - mean) / std, "clip": True}
    return {"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, **limits}


def _padding_to_patch(
    preprocessing: Preprocessing, scaling: Mapping[str, Any]
) -> list[dict[str, Any]]:
    if preprocessing.window_size is not None:
        return []
    pad = {"_target_": "SpatialPadd", "spatial_size": list(preprocessing.patch_size)}
    return [pad | _padding(preprocessing, scaling)]


def _padding(preprocessing: Preprocessing, scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the value beyond the edge of a scan, after scaling."""
    from fseft.learn.sampling.patch_sampler import OUTSIDE

    (intensity,) = preprocessing.intensity
    if preprocessing.padding == "zero" or intensity.region == "nonzero":
        return {"mode": "constant", "value": 0.0}
    if "a_min" not in scaling:  # the value of air depends on the case
        return {"mode": "minimum"}
    low, high = scaling["a_min"], scaling["a_max"]
    air = min(max(OUTSIDE[preprocessing.modality], low), high)
    scale = (scaling["b_max"] - scaling["b_min"]) / (high - low)
    return {"mode": "constant", "value": scaling["b_min"] + scale * (air - low)}


def _postprocessing(manifest: Manifest) -> list[dict[str, Any]]:
    """Returns the transforms from logits to a label map on the grid of the file."""
    import numpy as np

    prediction = {"keys": "pred"}
    values = [0, *manifest.labels.values()]
    return [
        {
            "_target_": "Invertd",
            **prediction,
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {**_decision(manifest.writing_channels), **prediction},
        {
            "_target_": "MapLabelValued",
            **prediction,
            "orig_labels": list(range(len(values))),
            "target_labels": values,
        },
        {
            "_target_": "SaveImaged",
            **prediction,
            "output_dir": "@output_dir",
            "output_postfix": "",
            "separate_folder": False,
            "output_dtype": f"$np.{np.min_scalar_type(max(values))}",
        },
    ]


def _decision(order: tuple[int, ...]) -> dict[str, Any]:
    """Returns the transform from logits to classes: see `fseft.volume.decision`."""
    if not order:
        return {"_target_": "AsDiscreted", "argmax": True}
    write = "lambda classes, channel: torch.where(logits[channel] > logits[0], channel, classes)"
    start = "torch.zeros_like(logits[0])"
    classes = f"functools.reduce({write}, {list(order)}, {start})"
    return {"_target_": "Lambdad", "func": f"$lambda logits: {classes}[None]"}


def _metadata(manifest: Manifest) -> dict[str, Any]:
    """Returns the metadata that the specification of bundles requires."""
    names = {str(channel): name for channel, name in enumerate(["background", *manifest.labels])}
    shape = {"spatial_shape": list(manifest.preprocessing.patch_size), "dtype": "float32"}
    return {
        "version": __version__,
        "changelog": {__version__: f"exported by fseft {__version__}"},
        "monai_version": manifest.versions.get("monai", ""),
        "pytorch_version": manifest.versions.get("torch", ""),
        "numpy_version": metadata.version("numpy"),
        "required_packages_version": {"nibabel": "5.3", "fire": "0.7"},
        "name": ", ".join(manifest.labels),
        "task": f"segmentation of {', '.join(manifest.labels)}",
        "description": f"{manifest.model} adapted by {manifest.method.name}",
        "authors": "",
        "copyright": manifest.licence,
        "data_source": manifest.dataset,
        "data_type": "nibabel",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": manifest.preprocessing.modality,
                    "num_channels": len(manifest.channels),
                    "channel_def": dict(enumerate(manifest.channels)),
                    **shape,
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": 1 + len(manifest.labels),
                    "channel_def": names,
                    **shape,
                }
            },
        },
    }
