"""The adapters of a prediction, and which of them one pass of a network serves."""

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
    """An adapter file.

    Attributes:
        place: As the user gave it: the file, or the folder of its run.
        file: The absolute path.
        sha256: Of the file.
        name: Of what is written for this adapter alone: its file's or folder's, unlike that of the others.
        manifest: What it says of itself.
    """

    place: Path
    file: Path
    sha256: str
    name: str
    manifest: Manifest = field(compare=False)

    @property
    def channels(self) -> int:
        """Of its logits: the background and its structures."""
        return 1 + len(self.manifest.labels)


AdapterGroup = tuple[OpenAdapter, ...]
"""Adapters that share one pass of a network over a scan."""


def open_adapters(places: Sequence[Path], store: Workspace) -> tuple[OpenAdapter, ...]:
    """Read what adapters say of themselves.

    Raises:
        FseftError: None is given, one is none or given twice, is for another backbone, or they take other channels.
    """
    if not places:
        raise FseftError("there is no adapter", hint="Give one with --adapter.")
    manifests = [read_manifest(place) for place in places]
    files = [(place / NAME if place.is_dir() else place).absolute() for place in places]
    hashes = [file_digest(file) for file in files]
    weights_of = lru_cache(find_weights)
    for place, manifest, sha256, before in zip(
        places, manifests, hashes, range(len(places)), strict=True
    ):
        if sha256 in hashes[:before]:
            raise FseftError("the adapter is given twice", file=place, hint="Leave one out.")
        if len(manifest.channels) != len(manifests[0].channels):
            cause = f"takes {len(manifest.channels)} channel(s), {places[0]} takes {len(manifests[0].channels)}"
            raise FseftError(cause, file=place, hint="Predict with them one by one.")
        find_backbone(place, manifest, store, weights_of)
    return tuple(map(OpenAdapter, places, files, hashes, _names(files), manifests))


def _names(files: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as it takes to tell all of them apart."""
    paths = [
        file.parent.parts if file.name == NAME else (*file.parent.parts, file.stem)
        for file in files
    ]
    for length in range(1, max(map(len, paths))):
        names = ["-".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return names


def group_adapters(adapters: Sequence[OpenAdapter]) -> tuple[AdapterGroup, ...]:
    """Adapters on the same frozen features of the same input together, all others by themselves.

    Methods of other packages are never grouped with built-in ones, as the receptive field of their
    heads is unknown.
    """
    groups: dict[str, list[OpenAdapter]] = {}
    for adapter in adapters:
        groups.setdefault(_features(adapter), []).append(adapter)
    return tuple(map(tuple, groups.values()))


def _features(adapter: OpenAdapter) -> str:
    """A key of the features that the adapter's head is put on."""
    made = adapter.manifest
    if not _has_frozen_features(adapter) or not made.backbone_sha256:
        return adapter.sha256
    preprocessing = made.preprocessing.model_dump(mode="json")
    return digest(
        made.backbone_sha256, made.architecture, made.hparams, preprocessing, _is_ours(adapter)
    )


def _is_ours(adapter: OpenAdapter) -> bool:
    return adapter.manifest.method.distribution == "fseft"


def _has_frozen_features(adapter: OpenAdapter) -> bool:
    """Whether nothing but the head is the adapter's own."""
    made = adapter.manifest
    spec = registry().method(method_name(made, adapter.place))
    texts = (
        not spec.trains and TEXT_CLASSES in made.hparams
    )  # their head looks at deeper features too
    return spec.access == "black-box" and set(made.beside.values()) == {"frozen"} and not texts


def load_adapter_group(adapters: AdapterGroup, store: Workspace) -> nn.Module:
    """The network that gives the logits of all adapters, one after the other along the channels.

    Our black-box heads are kept apart, to run once on each voxel instead of in every window: those that are more than
    pointwise, and all where there are more classes than features. Else the result is the same, and logits are fewer.

    Raises:
        FseftError: An adapter is of another backbone, or its method or model is not installed.
    """
    body = load_adapter_backbone(adapters[0].file, adapters[0].manifest, store)
    architecture, heads = body.architecture, []
    width = architecture.head(body.network).in_channels
    for adapter in adapters:
        network = load_adapter_onto(body, adapter.file, adapter.manifest)
        heads.append(architecture.head(network))
    if not _has_frozen_features(adapters[0]):
        return network
    classes = sum(adapter.channels for adapter in adapters)
    if _is_ours(adapters[0]) and (classes > width or not all(map(is_pointwise, heads))):
        architecture.replace_head(network, nn.Identity())
        return SplitNetwork(network, ParallelHeads(heads))
    if len(heads) > 1:
        architecture.replace_head(network, ParallelHeads(heads))
    return network
