"""Adapters on disk: one safetensors file with the trained tensors and a manifest in its header."""

from __future__ import annotations

import json
import warnings
from importlib import metadata
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fseft.errors import FseftError, PluginError
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.adapters.apply import adapt_network
from fseft.model_zoo.catalogue import find_model_card, find_weights
from fseft.model_zoo.loading import load_backbone
from fseft.registry import registry
from fseft.schemas import Manifest
from fseft.workspace import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from torch import Tensor, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.model_zoo.catalogue import Weights
    from fseft.model_zoo.loading import Backbone
    from fseft.schemas import ModelCard, Provenance
    from fseft.workspace import Workspace

HEADER = "fseft"
NAME = "adapter.safetensors"


def write_adapter(
    path: Path, tensors: Mapping[str, Tensor], manifest: Manifest, *, half: bool = False
) -> None:
    """Write an adapter atomically; in half precision, if wanted, what is no index or count."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if half:
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in tensors.items()
        }
    with atomic_write(path) as temporary:
        # As bytes: safetensors' own file would be closed to the group.
        temporary.write_bytes(save(dict(tensors), metadata={HEADER: manifest.model_dump_json()}))


def read_manifest(path: Path) -> Manifest:
    """The manifest in an adapter's header.

    Raises:
        FseftError: Missing, no safetensors file, or not an adapter of fseft.
    """
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        below = next(iter(sorted(path.parent.rglob(NAME))), None)
        hint = f"Did you mean {below.parent}?" if below else f"Give the {NAME} of a finished run."
        raise FseftError("there is no adapter", file=path, hint=hint)
    try:
        path.open(
            "rb"
        ).close()  # safe_open tells a file that may not be read as one that is not there
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
    except OSError as error:
        raise FseftError(
            f"cannot be read ({error.strerror or error})", file=path, hint="Check its rights."
        ) from error
    except SafetensorError as error:
        raise FseftError(
            f"is not a safetensors file ({error})", file=path, hint="Copy it again."
        ) from error
    if header is None:
        raise FseftError("is no adapter of fseft: the manifest is missing", file=path)
    try:
        return Manifest.model_validate_json(header)
    except ValidationError as error:
        raise FseftError(
            f"the manifest is not understood ({error.error_count()} problems)",
            file=path,
            hint="It was made by another version of fseft: adapt again, or install that version.",
        ) from error


def load_adapter(path: Path, store: Workspace) -> tuple[nn.Module, Manifest]:
    """The adapted network of an adapter file: backbone, method and trained tensors, merged to a plain module.

    Raises:
        FseftError: The adapter is of another backbone, or its method or model is not installed.
    """
    manifest = read_manifest(path)
    body = load_adapter_backbone(path, manifest, store)
    return load_adapter_onto(body, path / NAME if path.is_dir() else path, manifest), manifest


def load_adapter_backbone(path: Path, manifest: Manifest, store: Workspace) -> Backbone:
    """The network that an adapter was made with, as it was before.

    Raises:
        FseftError: The adapter is of another backbone, or its model is not installed.
    """
    card, weights = find_backbone(path, manifest, store)
    return load_backbone(
        card, weights, len(manifest.channels), structures=len(manifest.labels), seed=manifest.seed
    )


def load_adapter_onto(body: Backbone, path: Path, manifest: Manifest) -> nn.Module:
    """Put an adapter on its network, which may have the head of another one by now.

    Raises:
        FseftError: The method of the adapter is not installed.
    """
    from safetensors.torch import load_file

    method = method_name(manifest, path)
    _doubt_another_version(manifest, path, registry().provenance("method", method))
    body.put_head(
        list(manifest.labels),
        seed=manifest.seed,
        unmatched_never=not registry().method(method).trains,
    )
    adapted = apply_method(
        body.architecture,
        body.network,
        method,
        manifest.config,
        manifest.part_modes,
        manifest.seed,
        body.random,
    )
    try:
        adapted.load_state_dict(load_file(path))
    except FseftError as error:
        raise error.located(file=path) from error
    return adapted.merge()


def _doubt_another_version(manifest: Manifest, path: Path, here: Provenance) -> None:
    made = manifest.method
    if made.distribution != "fseft" and made.version != here.version:
        told = (
            f"was made by {made.distribution} {made.version}, and {here.version} is installed: "
            "results may differ"
        )
        warnings.warn(f"{path}: {told}", stacklevel=2)


def find_backbone(
    path: Path,
    manifest: Manifest,
    store: Workspace,
    weights_of: Callable[[str, Workspace], Weights] = find_weights,
) -> tuple[ModelCard, Weights | None]:
    """The model that an adapter was made with, and its weights; none where it started from random ones.

    Args:
        path: Of the adapter.
        manifest: What it says of itself.
        store: Where models of the workspace lie.
        weights_of: Finds a model's weights; one that remembers them reads each file only once.

    Raises:
        FseftError: The model here is another one, or missing.
    """
    card = find_model_card(manifest.model, store)
    made_with = {"architecture": manifest.architecture, "hparams": manifest.hparams}
    if manifest.backbone_sha256 and made_with != card.model_dump(
        mode="json", include={"architecture", "hparams"}
    ):
        raise FseftError(
            f"the adapter is for another backbone: {card.name!r} is built otherwise now than when it was made",
            file=path,
            hint=f"It was {manifest.architecture} with {manifest.hparams}.",
        )
    weights = weights_of(manifest.model, store) if manifest.backbone_sha256 else None
    if weights and weights.sha256 != manifest.backbone_sha256:
        raise FseftError(
            f"the adapter is for another backbone: the weights of {card.name!r} here are not those it was made with",
            file=path,
            hint="Get the weights whose sha256 starts with " + manifest.backbone_sha256[:12] + ".",
        )
    return card.model_copy(update=made_with), weights


def method_name(manifest: Manifest, path: Path) -> str:
    """The name of an adapter's method in full, as another package may offer one of the same name.

    Raises:
        FseftError: It is not installed.
    """
    made = manifest.method
    short = made.name.rpartition(":")[2]
    full = f"{made.distribution}:{short}"
    try:
        registry().method(full)
    except FseftError as error:
        raise FseftError(
            f"the adapter needs the method {short!r} of the package {made.distribution} {made.version}, "
            "which is not installed or does not work here",
            file=path,
            hint="Install it, or see what `fseft plugins` says of it.",
        ) from error
    return full


def apply_method(
    architecture: Architecture,
    network: nn.Module,
    name: str,
    config: Mapping[str, Any],
    beside: Mapping[str, str],
    seed: int,
    random: Sequence[str] = (),
) -> AdaptedNetwork:
    """Make the method of that name with its configuration and apply it.

    Parameters that are still `random` are trained beside what the method trains: nothing random is ever frozen.
    """
    spec = registry().method(name)
    try:
        valid = spec.config.model_validate_json(json.dumps(dict(config)))
    except ValidationError as error:
        raise FseftError(
            f"the method {name!r} does not know these settings ({error.errors()[0]['msg']})",
            hint="Install the version of its package that made the adapter.",
        ) from error
    method = registry().create("method", name, valid)
    adapted = adapt_network(architecture, network, method, seed=seed, missing_keys=random, **beside)
    if spec.access == "black-box" and set(beside.values()) == {"frozen"}:
        _check_frozen(adapted, head_names(architecture, network), random)
    return adapted


def _check_frozen(adapted: AdaptedNetwork, heads: Sequence[str], random: Sequence[str]) -> None:
    """A method that says it is a black-box one shares the features of the frozen network with others."""
    homes = tuple(f"{head}." for head in heads)
    changed = [
        name
        for name, _ in adapted.trainable_parameters()
        if not name.startswith(homes) and name not in random
    ]
    if changed:
        raise PluginError(
            f"apply() trains {changed[0]}, which is not part of the head, but the method is declared black-box"
        )


def versions() -> dict[str, str]:
    """What a result depends on."""
    from fseft.version import __version__

    return {"fseft": __version__, **{name: metadata.version(name) for name in ("torch", "monai")}}
