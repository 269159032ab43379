"""Adapter files: safetensors with the trained tensors, and a manifest in the header."""

from __future__ import annotations

import json
import logging
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

logger = logging.getLogger(__name__)

HEADER = "fseft"
NAME = "adapter.safetensors"


def write_adapter(
    path: Path, tensors: Mapping[str, Tensor], manifest: Manifest, *, fp16: bool = False
) -> None:
    """Writes an adapter atomically.

    Args:
        path: Target file.
        tensors: Trained tensors by name.
        manifest: Everything that is needed to rebuild the network.
        fp16: Whether floating-point tensors are stored in half precision.
    """
    from safetensors.torch import save

    stored = {}
    for name, tensor in tensors.items():
        is_halved = fp16 and tensor.is_floating_point()
        stored[name] = (tensor.half() if is_halved else tensor).contiguous()
    with atomic_write(path) as temporary:
        # As bytes: files that safetensors writes deny access to the group.
        temporary.write_bytes(save(stored, metadata={HEADER: manifest.model_dump_json()}))


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest of an adapter.

    Args:
        path: The adapter file, or the folder of a run.

    Raises:
        FseftError: The file is missing, or not an adapter of fseft.
    """
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        nested = next(iter(sorted(path.parent.rglob(NAME))), None)
        hint = f"Did you mean {nested.parent}?" if nested else f"Pass the {NAME} of a finished run."
        raise FseftError("the adapter does not exist", file=path, hint=hint)
    header = _read_header(path)
    if header is None:
        raise FseftError("is not an adapter of fseft: the manifest is missing", file=path)
    try:
        return Manifest.model_validate_json(header)
    except ValidationError as error:
        raise FseftError(
            f"the manifest is invalid ({error.error_count()} problems)",
            file=path,
            hint="Another version of fseft wrote it: adapt again, or install that version.",
        ) from error


def _read_header(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # safetensors reports an unreadable file as missing
        with safe_open(path, framework="pt") as file:
            header: str | None = (file.metadata() or {}).get(HEADER)
    except OSError as error:
        cause = f"cannot be read ({error.strerror or error})"
        raise FseftError(cause, file=path, hint="Check its permissions.") from error
    except SafetensorError as error:
        cause = f"is not a safetensors file ({error})"
        raise FseftError(cause, file=path, hint="Copy it again.") from error
    return header


def load_adapter(path: Path, workspace: Workspace) -> tuple[nn.Module, Manifest]:
    """Loads the network of an adapter: backbone, method and trained tensors, merged.

    Args:
        path: The adapter file, or the folder of a run.
        workspace: Workspace with the models of the user.

    Returns:
        A module from images (B, C, i, j, k) to logits (B, 1 + structures, i, j, k), and the
        manifest.

    Raises:
        FseftError: The adapter has another backbone, or its method or model is not installed.
    """
    manifest = read_manifest(path)
    model = load_adapter_backbone(path, manifest, workspace)
    return load_adapter_onto(model, path / NAME if path.is_dir() else path, manifest), manifest


def load_adapter_backbone(path: Path, manifest: Manifest, workspace: Workspace) -> Backbone:
    """Loads the network that an adapter was trained on, without the adapter.

    Args:
        path: The adapter file, for errors.
        manifest: Manifest of the adapter.
        workspace: Workspace with the models of the user.

    Raises:
        FseftError: The adapter has another backbone, or its model is not installed.
    """
    card, weights = find_backbone(path, manifest, workspace)
    return load_backbone(
        card, weights, len(manifest.channels), structures=len(manifest.labels), seed=manifest.seed
    )


def load_adapter_onto(model: Backbone, path: Path, manifest: Manifest) -> nn.Module:
    """Applies an adapter to its backbone, whose head is replaced.

    Args:
        model: The backbone of the adapter; it may have the head of another one.
        path: The adapter file.
        manifest: Manifest of the adapter.

    Returns:
        The network with the adapter merged into it.

    Raises:
        FseftError: The method of the adapter is not installed.
    """
    from safetensors.torch import load_file

    method = method_name(manifest, path)
    _warn_of_other_version(manifest, path, registry().provenance("method", method))
    model.put_head(
        list(manifest.labels),
        seed=manifest.seed,
        suppress_unmatched=not registry().method(method).trains,
    )
    adapted = apply_method(
        model.architecture,
        model.network,
        method,
        manifest.config,
        manifest.part_modes,
        manifest.seed,
        model.missing_keys,
    )
    try:
        adapted.load_state_dict(load_file(path))
    except FseftError as error:
        raise error.located(file=path) from error
    return adapted.merge()


def _warn_of_other_version(manifest: Manifest, path: Path, installed: Provenance) -> None:
    method = manifest.method
    if method.distribution != "fseft" and method.version != installed.version:
        logger.warning(
            "%s: was trained with %s %s, and %s is installed: results may differ",
            path,
            method.distribution,
            method.version,
            installed.version,
        )


def find_backbone(
    path: Path,
    manifest: Manifest,
    workspace: Workspace,
    weights_of: Callable[[str, Workspace], Weights] = find_weights,
) -> tuple[ModelCard, Weights | None]:
    """Finds the model that an adapter was trained on.

    Args:
        path: The adapter file, for errors.
        manifest: Manifest of the adapter.
        workspace: Workspace with the models of the user.
        weights_of: Finds the weights of a model; may cache them.

    Returns:
        Card and weights; None for random weights.

    Raises:
        FseftError: The model is missing, or differs from that of the adapter.
    """
    card = find_model_card(manifest.model, workspace)
    network = {"architecture": manifest.architecture, "hparams": manifest.hparams}
    if not manifest.backbone_sha256:
        return card.model_copy(update=network), None
    mismatch = "the adapter is for another backbone"
    if network != card.model_dump(mode="json", include={"architecture", "hparams"}):
        raise FseftError(
            f"{mismatch}: the network of {card.name!r} has changed since",
            file=path,
            hint=f"It was {manifest.architecture} with {manifest.hparams}.",
        )
    weights = weights_of(manifest.model, workspace)
    if weights.sha256 != manifest.backbone_sha256:
        raise FseftError(
            f"{mismatch}: the installed weights of {card.name!r} are not those of the training",
            file=path,
            hint=f"Get the weights whose sha256 starts with {manifest.backbone_sha256[:12]}.",
        )
    return card.model_copy(update=network), weights


def method_name(manifest: Manifest, path: Path) -> str:
    """Returns the full name of an adapter's method, `package:name`.

    Args:
        manifest: Manifest of the adapter.
        path: The adapter file, for errors.

    Raises:
        FseftError: The method is not installed.
    """
    method = manifest.method
    name = method.name.rpartition(":")[2]
    full_name = f"{method.distribution}:{name}"
    try:
        registry().method(full_name)
    except FseftError as error:
        package = f"{method.distribution} {method.version}"
        raise FseftError(
            f"the adapter needs the method {name!r} of the package {package}, which is not "
            "installed or cannot be used",
            file=path,
            hint="Install it, or check it with `fseft plugins`.",
        ) from error
    return full_name


def apply_method(
    architecture: Architecture,
    network: nn.Module,
    name: str,
    config: Mapping[str, Any],
    part_modes: Mapping[str, str],
    seed: int,
    missing_keys: Sequence[str] = (),
) -> AdaptedNetwork:
    """Applies a method to a network.

    Args:
        architecture: Architecture of the network.
        network: The network; changed in place.
        name: Name of the method.
        config: Configuration of the method, not validated.
        part_modes: Modes of decoder and bottleneck.
        seed: Seed of new weights.
        missing_keys: Parameters without pre-trained values, which are trained as well: random
            weights are never frozen.

    Raises:
        FseftError: The configuration is not valid for the installed version of the method.
    """
    spec = registry().method(name)
    try:
        validated = spec.config.model_validate_json(json.dumps(dict(config)))
    except ValidationError as error:
        raise FseftError(
            f"the method {name!r} does not accept these settings ({error.errors()[0]['msg']})",
            hint="Install the version of its package that the adapter was trained with.",
        ) from error
    method = registry().create("method", name, validated)
    adapted = adapt_network(
        architecture, network, method, seed=seed, missing_keys=missing_keys, **part_modes
    )
    if spec.access == "black-box" and set(part_modes.values()) == {"frozen"}:
        _check_frozen(adapted, head_names(architecture, network), missing_keys)
    return adapted


def _check_frozen(
    adapted: AdaptedNetwork, heads: Sequence[str], missing_keys: Sequence[str]
) -> None:
    """Checks that a black-box method trains the head only, as adapters share features."""
    prefixes = tuple(f"{head}." for head in heads)
    for name, _ in adapted.trainable_parameters():
        if not name.startswith(prefixes) and name not in missing_keys:
            raise PluginError(
                f"apply() trains {name}, which is not part of the head, but the method is declared "
                "black-box"
            )


def versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    from fseft.version import __version__

    return {"fseft": __version__, **{name: metadata.version(name) for name in ("torch", "monai")}}
