"""Reader of TensorFlow.js layers models: `model.json` and its files of weights.

`model.json` has the topology of Keras and `weightsManifest`: groups of files, and the name, shape
and dtype of each tensor in their concatenated bytes, little-endian and in order.
"""

from __future__ import annotations

from math import prod
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, Field

from fseft.documents import read_json
from fseft.errors import FseftError, pluralise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from fseft.schemas import ModelCard

NORMALISED = "_gn"
"""End of the names of convolutions whose output is normalised per channel."""
_HINT = "Use a layers model of TensorFlow.js as its owner provides it."


class _Weight(BaseModel):
    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32"]
    quantization: None = None


class _Group(BaseModel):
    paths: tuple[str, ...]
    weights: tuple[_Weight, ...]


class _Layer(BaseModel):
    class_name: str
    config: dict[str, Any]


class _Network(BaseModel):
    layers: tuple[_Layer, ...]


class _KerasModel(BaseModel):
    config: _Network


class _Topology(BaseModel):
    keras: _KerasModel = Field(alias="model_config")


class LayersModel(BaseModel):
    """Content of `model.json`."""

    topology: _Topology = Field(alias="modelTopology")
    manifest: tuple[_Group, ...] = Field(alias="weightsManifest")


def read(path: Path) -> dict[str, Any]:
    """Reads a MeshNet.

    Args:
        path: The file `model.json`; the files of weights that it names are next to it.

    Returns:
        `tensors`, by the names of the network, and `network`, the hyper-parameters of `meshnet`.

    Raises:
        FseftError: A file is missing, damaged or of another size, or the network is not a MeshNet.
    """
    model: LayersModel = read_json(path, LayersModel, name="TensorFlow.js model", hint=_HINT)
    tensors: dict[str, Tensor] = {}
    for group in model.manifest:
        tensors.update(_read_group(path, group))
    network = _hyper_parameters(model.topology.keras.config.layers)
    return {"tensors": _to_network(tensors), "network": network}


def _read_group(path: Path, group: _Group) -> dict[str, Tensor]:
    """Reads the tensors of a group of files."""
    files = [_neighbour(path, name) for name in group.paths]
    values = np.frombuffer(b"".join(file.read_bytes() for file in files), "<f4")
    expected = sum(prod(weight.shape) for weight in group.weights)
    if len(values) != expected:
        raise FseftError(
            f"has {len(values):,} numbers, {path.name} describes {expected:,}",
            file=files[0] if files else path,
            hint="Download both again.",
        )
    tensors, start = {}, 0
    for weight in group.weights:
        stop = start + prod(weight.shape)
        part = values[start:stop].reshape(weight.shape)
        tensors[weight.name] = torch.from_numpy(part.astype(np.float32))
        start = stop
    return tensors


def _neighbour(path: Path, name: str) -> Path:
    """Returns a file of weights; only one in the folder of `model.json` is read."""
    file = path.with_name(PurePosixPath(name).name)
    if not file.is_file() or file.stat().st_size % 4:
        cause = "is not a file of float32 numbers" if file.is_file() else "is missing"
        raise FseftError(cause, file=file, hint=f"{path.name} needs it; download both.")
    return file


def _hyper_parameters(layers: tuple[_Layer, ...]) -> dict[str, Any]:
    """Returns the hyper-parameters of `meshnet`.

    Raises:
        FseftError: The layers are not those of a MeshNet.
    """
    convolutions = [layer.config for layer in layers if layer.class_name == "Conv3D"]
    activations = [layer.config for layer in layers if layer.class_name == "Activation"]
    known = {"InputLayer", "Conv3D", "Activation"}
    if unknown := [layer.class_name for layer in layers if layer.class_name not in known]:
        raise FseftError(f"has a layer {unknown[0]!r}, which a MeshNet lacks", hint=_HINT)
    *hidden, _ = convolutions or [{}]
    widths = {config.get("filters") for config in hidden}
    kinds = {config.get("activation") for config in activations}
    norms = {str(config.get("name")).endswith(NORMALISED) for config in hidden}
    if not all(len(found) == 1 for found in (widths, kinds, norms)):
        cause = f"has {pluralise(len(hidden), 'layer')} of different kinds"
        raise FseftError(cause, hint=_HINT)
    return {
        "channels": widths.pop(),
        "dilations": [config["dilation_rate"][0] for config in hidden],
        "activation": kinds.pop(),
        "norm": "instance" if norms.pop() else "none",
    }


def _to_network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors by the names and in the layout of `meshnet`.

    Args:
        tensors: Kernels (i, j, k, in, out) and biases, in the order of the layers.
    """
    kernels = [name for name in tensors if name.endswith("/kernel")]
    converted = {}
    for number, name in enumerate(kernels):
        layer = "head" if number == len(kernels) - 1 else f"layers.{number}.conv"
        converted[f"{layer}.weight"] = tensors[name].permute(4, 3, 0, 1, 2).contiguous()
        bias = name.replace("/kernel", "/bias")
        if bias in tensors:
            converted[f"{layer}.bias"] = tensors[bias]
    return converted


def check_network(card: ModelCard, file: Path, content: Mapping[str, Any]) -> ModelCard:
    """Returns the card of a model if the network of a file is that of the card.

    Args:
        card: Card of the model.
        file: Not used.
        content: Content of the file, as `read` returns it.

    Raises:
        FseftError: The file has another network.
    """
    del file
    for name, value in content["network"].items():
        expected = card.hparams[name]
        if value != expected:
            cause = f"has a network of {name} {value}, that of {card.name!r} has {expected}"
            raise FseftError(cause, hint="Pass the file of this model.")
    return card
