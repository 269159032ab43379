"""Adapters of a prediction, grouped by the forward passes that they can share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import nn

from fseft.errors import FseftError
from fseft.learn.networks.heads import ParallelHeads, SplitNetwork, is_pointwise
from fseft.learn.networks.roles import TEXT_CLASSES
from fseft.model_zoo.adapter_file import (
    NAME,
    find_backbone,
    load_adapter_backbone,
    load_adapter_onto,
    method_name,
    read_manifest,
)
from fseft.model_zoo.catalogue import find_weights
from fseft.registry import registry
from fseft.workspace import digest, file_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fseft.schemas import Manifest
    from fseft.workspace import Workspace


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter file whose manifest has been read.

    Attributes:
        path: The file, or the folder of its run, as the user wrote it.
        file: Absolute path of the file.
        sha256: Hash of the file.
        name: Name of its output folder; unique among the adapters of a prediction.
        manifest: Manifest in the file's header.
    """

    path: Path
    file: Path
    sha256: str
    name: str
    manifest: Manifest = field(compare=False)

    @property
    def num_channels(self) -> int:
        """Number of logits per voxel: the background and the structures."""
        return 1 + len(self.manifest.labels)


AdapterGroup = tuple[OpenAdapter, ...]
"""Adapters that share one forward pass over a scan."""


def open_adapters(paths: Sequence[Path], workspace: Workspace) -> tuple[OpenAdapter, ...]:
    """Reads the manifests of adapters and checks that they can segment the same scans.

    Args:
        paths: Adapter files, or folders of runs.
        workspace: Workspace with the models that adapters may need.

    Raises:
        FseftError: No adapter, a file that is not an adapter, a duplicate, a missing backbone, or
            adapters with different numbers of input channels.
    """
    if not paths:
        raise FseftError("no adapter was passed", hint="Pass the file or run folder of an adapter.")
    manifests = [read_manifest(path) for path in paths]
    files = [(path / NAME if path.is_dir() else path).absolute() for path in paths]
    hashes = [file_digest(file) for file in files]
    find_cached = lru_cache(find_weights)
    for index, path in enumerate(paths):
        if hashes[index] in hashes[:index]:
            raise FseftError("the adapter was passed twice", file=path, hint="Leave one out.")
        _check_channels(path, manifests[index], paths[0], manifests[0])
        find_backbone(path, manifests[index], workspace, find_cached)
    return tuple(map(OpenAdapter, paths, files, hashes, _unique_names(files), manifests))


def _check_channels(path: Path, manifest: Manifest, first: Path, expected: Manifest) -> None:
    channels = len(manifest.channels)
    if channels != len(expected.channels):
        raise FseftError(
            f"takes {channels} channel(s), {first} takes {len(expected.channels)}",
            file=path,
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
    manifest = adapter.manifest
    spec = registry().method(method_name(manifest, adapter.path))
    if not spec.trains and TEXT_CLASSES in manifest.hparams:
        return False  # a text-driven head takes features of deeper levels too
    return spec.access == "black-box" and set(manifest.part_modes.values()) == {"frozen"}


def load_adapter_group(adapters: AdapterGroup, workspace: Workspace) -> nn.Module:
    """Loads one network that returns the logits of all adapters of a group.

    Built-in black-box heads that are more than pointwise, and all heads where classes outnumber
    the features, are split from the network: they then run once per voxel of the blended features
    instead of in every window.

    Returns:
        A module from (B, C, i, j, k) to logits (B, sum of `num_channels`, i, j, k), concatenated in
        the order of the adapters.

    Raises:
        FseftError: An adapter belongs to another backbone, or its method or model is not installed.
    """
    first = adapters[0]
    backbone = load_adapter_backbone(first.file, first.manifest, workspace)
    architecture = backbone.architecture
    num_features = architecture.head(backbone.network).in_channels
    heads: list[nn.Module] = []
    for adapter in adapters:
        network = load_adapter_onto(backbone, adapter.file, adapter.manifest)
        heads.append(architecture.head(network))
    if not _has_frozen_features(first):
        return network
    num_classes = sum(adapter.num_channels for adapter in adapters)
    wide = num_classes > num_features or not all(map(is_pointwise, heads))
    if wide and _is_builtin(first):
        architecture.replace_head(network, nn.Identity())
        return SplitNetwork(network, ParallelHeads(heads))
    if len(heads) > 1:
        architecture.replace_head(network, ParallelHeads(heads))
    return network
