"""Adapters of a prediction, grouped by the forward passes that they can share."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from torch import nn

from fseft.errors import FseftError
from fseft.learn.networks.heads import ParallelHeads, SplitNetwork, is_pointwise
from fseft.learn.networks.roles import TEXT_CLASSES
from fseft.model_zoo.adapter_file import (
    OpenAdapter,
    load_adapter_backbone,
    load_adapter_onto,
    open_adapter,
)
from fseft.model_zoo.adapter_path import NAME
from fseft.model_zoo.catalogue import find_model
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fseft.workspace import Workspace


AdapterGroup = tuple[OpenAdapter, ...]
"""Adapters that share one forward pass over a scan."""


def open_adapters(paths: Sequence[Path], workspace: Workspace) -> tuple[OpenAdapter, ...]:
    """Opens adapters, and checks that they can segment the same scans.

    Args:
        paths: Adapter files, or folders of runs.
        workspace: Workspace with the models that adapters may need.

    Raises:
        FseftError: No adapter, a file that is not an adapter, a duplicate, a missing method or
            backbone, or adapters with different numbers of input channels.
    """
    if not paths:
        raise FseftError("no adapter was passed", hint="Pass the file or run folder of an adapter.")
    model_of = lru_cache(partial(find_model, workspace=workspace))
    adapters = [open_adapter(path, model_of) for path in paths]
    for index, adapter in enumerate(adapters):
        if adapter.sha256 in [other.sha256 for other in adapters[:index]]:
            raise FseftError(
                "the adapter was passed twice", file=adapter.path, hint="Leave one out."
            )
        _check_channels(adapter, adapters[0])
    names = _unique_names([adapter.file for adapter in adapters])
    return tuple(replace(adapter, name=name) for adapter, name in zip(adapters, names, strict=True))


def _check_channels(adapter: OpenAdapter, first: OpenAdapter) -> None:
    """Refuses adapters of other channels; the only one has any name."""
    channels, expected = (item.manifest.channels for item in (adapter, first))
    if channels != expected and (len(channels) > 1 or len(expected) > 1):
        raise FseftError(
            f"takes {len(channels)} channel(s) ({', '.join(channels)}), {first.path} takes "
            f"{len(expected)} ({', '.join(expected)})",
            file=adapter.path,
            hint="Predict with each of them separately.",
        )


def _unique_names(files: Sequence[Path]) -> list[str]:
    """Shortest path endings that differ between all files."""
    parts = [file.parent.parts for file in files]
    parts = [
        folder if file.name == NAME else (*folder, file.stem)
        for file, folder in zip(files, parts, strict=True)
    ]
    for length in range(1, max(map(len, parts))):
        names = ["-".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def group_adapters(adapters: Sequence[OpenAdapter]) -> tuple[AdapterGroup, ...]:
    """Groups adapters on the same frozen features of the same input; others stay alone.

    Methods of other packages are never grouped with built-in ones, as the receptive field of their
    heads is unknown.
    """
    groups: dict[str, list[OpenAdapter]] = {}
    for adapter in adapters:
        groups.setdefault(_features_key(adapter), []).append(adapter)
    return tuple(map(tuple, groups.values()))


def _features_key(adapter: OpenAdapter) -> str:
    """Key of the features that the adapter's head takes."""
    manifest = adapter.manifest
    if not _has_frozen_features(adapter) or not manifest.backbone_sha256:
        return adapter.sha256
    return digest(
        manifest.backbone_sha256,
        manifest.architecture,
        manifest.hparams,
        manifest.preprocessing.model_dump(mode="json"),
        _is_builtin(adapter),
    )


def _is_builtin(adapter: OpenAdapter) -> bool:
    return adapter.manifest.method.distribution == "fseft"


def _has_frozen_features(adapter: OpenAdapter) -> bool:
    """Whether the adapter changes nothing except the head."""
    manifest, spec = adapter.manifest, adapter.method.spec
    if not spec.trains and TEXT_CLASSES in manifest.hparams:
        return False  # a text-driven head takes features of deeper levels too
    return spec.access == "black-box" and set(manifest.part_modes.values()) == {"frozen"}


def load_adapter_group(adapters: AdapterGroup) -> nn.Module:
    """Loads one network that returns the logits of all adapters of a group.

    Built-in black-box heads that are more than pointwise, and all built-in heads where classes
    outnumber the features, are split from the network: they then run once per voxel of the blended
    features instead of in every window, and only the features are kept for a window's rows.

    Returns:
        A module from (B, C, i, j, k) to logits (B, sum of `num_channels`, i, j, k), concatenated in
        the order of the adapters.

    Raises:
        FseftError: The tensors of an adapter do not fit the network.
    """
    first = adapters[0]
    backbone = load_adapter_backbone(first)
    architecture = backbone.architecture
    num_features = architecture.head(backbone.network).in_channels
    heads: list[nn.Module] = []
    for adapter in adapters:
        network = load_adapter_onto(backbone, adapter)
        heads.append(architecture.head(network))
    num_classes = sum(adapter.num_channels for adapter in adapters)
    are_pointwise = all(map(is_pointwise, heads))
    if not _has_frozen_features(first) and not are_pointwise:
        return network
    wide = num_classes > num_features or not are_pointwise
    if wide and _is_builtin(first):
        architecture.replace_head(network, nn.Identity())
        return SplitNetwork(network, ParallelHeads(heads))
    if len(heads) > 1:
        architecture.replace_head(network, ParallelHeads(heads))
    return network
