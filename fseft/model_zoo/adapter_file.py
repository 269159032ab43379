"""Adapter files: safetensors with the trained tensors, and a manifest in the header."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import metadata
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fseft.documents import parse_json
from fseft.errors import FseftError, PluginError, describe_validation
from fseft.experiment.settings import ConfiguredMethod
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.adapters.apply import adapt_network
from fseft.model_zoo.adapter_path import NAME, adapter_path
from fseft.model_zoo.loading import load_backbone
from fseft.model_zoo.safetensors_content import content_digest, with_sorted_metadata
from fseft.registry import registry
from fseft.schemas import Manifest
from fseft.training_config import TrainingConfig
from fseft.workspace import atomic_write, file_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.model_zoo.catalogue import FoundationModel, Weights
    from fseft.model_zoo.loading import Backbone
    from fseft.schemas import ModelCard

logger = logging.getLogger(__name__)

HEADER, DIGEST = "fseft", "fseft_sha256"
"""Keys of the manifest, and of the digest of manifest and tensors, in the header of the file."""
_MAX_RUNS, _SIMILARITY = 3, 0.8  # of suggestions for a run that does not exist
_MISMATCH = "the adapter is for another backbone"


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
    stored = {}
    for name, tensor in tensors.items():
        is_halved = fp16 and tensor.is_floating_point()
        stored[name] = (tensor.half() if is_halved else tensor).contiguous()
    _write(path, stored, manifest)


def change_manifest(path: Path, **fields: Any) -> None:
    """Replaces fields of the manifest of an adapter; its tensors stay.

    Args:
        path: The adapter file.
        **fields: Field of the manifest -> new value.

    Raises:
        FseftError: The file is missing or damaged.
    """
    manifest = read_manifest(path)
    _write(path, read_tensors(path), manifest.model_copy(update=fields))


def _write(path: Path, stored: dict[str, Tensor], manifest: Manifest) -> None:
    from safetensors.torch import save

    text = manifest.model_dump_json()
    metadata = {HEADER: text, DIGEST: content_digest(text, stored)}
    with atomic_write(path) as temporary:
        # As bytes: files that safetensors writes deny access to the group.
        temporary.write_bytes(with_sorted_metadata(save(stored, metadata=metadata)))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of an adapter, and compares their digest with that in the header.

    Adapters of earlier versions have no digest.

    Raises:
        FseftError: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = _read_header(path)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise _damaged(path) from error
    digest = metadata.get(DIGEST)
    if digest and digest != content_digest(metadata.get(HEADER, ""), tensors):
        raise _damaged(path)
    return tensors


def is_intact(path: Path) -> bool:
    """Returns whether an adapter can be read and its digest is right."""
    try:
        read_manifest(path)
        read_tensors(path)
    except FseftError:
        return False
    return True


def _damaged(path: Path) -> FseftError:
    cause = "the adapter is damaged: its content differs from its digest"
    return FseftError(cause, file=path, hint="Copy it again, or adapt again.")


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest of an adapter.

    Args:
        path: The adapter file, or the folder of a run.

    Raises:
        FseftError: The file is missing, or not an adapter of fseft.
    """
    path = adapter_path(path)
    if not path.is_file():
        raise FseftError("the adapter does not exist", file=path, hint=_similar_runs(path))
    header = _read_header(path).get(HEADER)
    if header is None:
        raise FseftError("is not an adapter of fseft: the manifest is missing", file=path)
    hint = "Adapt again, or install the version of fseft that wrote it."
    manifest: Manifest = parse_json(
        header, Manifest, name="manifest of an adapter", hint=hint, file=path
    )
    return manifest


def _similar_runs(path: Path) -> str:
    """Suggests runs in the folder that was passed, or next to it with a similar name."""
    run = path.parent if path.name == NAME else path
    if run.is_dir():
        similar = sorted(str(file.parent) for file in run.rglob(NAME))[:_MAX_RUNS]
    else:
        names = [file.parent.name for file in run.parent.glob(f"*/{NAME}")]
        close = get_close_matches(run.name, names, n=_MAX_RUNS, cutoff=_SIMILARITY)
        similar = [str(run.parent / name) for name in close]
    if similar:
        return f"Did you mean {' or '.join(similar)}?"
    return f"Pass the {NAME} of a finished run."


def _read_header(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        path.open("rb").close()  # safetensors reports an unreadable file as missing
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
    except OSError as error:
        cause = f"cannot be read ({error.strerror or error})"
        raise FseftError(cause, file=path, hint="Check its permissions.") from error
    except SafetensorError as error:
        cause = f"is not a safetensors file ({error})"
        raise FseftError(cause, file=path, hint="Copy it again.") from error
    return header


@dataclass(frozen=True)
class OpenAdapter:
    """An adapter file with everything that it refers to, which `open_adapter` has resolved.

    Attributes:
        path: The file, or the folder of its run, as the user wrote it.
        file: Absolute path of the file.
        sha256: Hash of the file, or a key of model and preprocessing.
        name: Name of its output folder; unique among the adapters of a prediction.
        manifest: Manifest in the file's header.
        method: The method that it was trained with.
        card: Card of the model that it was trained on.
        weights: Verified weights of that model; None for random weights.
        own_model: The model itself if it predicts its own classes, without an adapter file.
    """

    path: Path
    file: Path
    sha256: str
    name: str
    manifest: Manifest = field(compare=False)
    method: ConfiguredMethod = field(compare=False)
    card: ModelCard = field(compare=False)
    weights: Weights | None = field(compare=False)
    own_model: FoundationModel | None = field(default=None, compare=False)

    @property
    def num_channels(self) -> int:
        """Number of logits per voxel: the background and the structures."""
        return 1 + len(self.manifest.labels)


def open_adapter(path: Path, model_of: Callable[[str], FoundationModel]) -> OpenAdapter:
    """Reads the manifest of an adapter, and resolves its method and its model.

    Args:
        path: The adapter file, or the folder of a run.
        model_of: Finds a foundation model by its name.

    Raises:
        FseftError: The file is not an adapter, its method or its model is not installed, or the
            model has other weights.
    """
    manifest = read_manifest(path)
    file = adapter_path(path).absolute()
    method = _method(manifest, path)
    model = model_of(manifest.model)
    card = _checked_card(path, manifest, model)
    weights = _checked_weights(path, manifest, model) if manifest.backbone_sha256 else None
    return OpenAdapter(path, file, file_digest(file), path.stem, manifest, method, card, weights)


def load_adapter(adapter: OpenAdapter) -> nn.Module:
    """Loads the network of an adapter: backbone, method and trained tensors, merged.

    Returns:
        A module from images (B, C, i, j, k) to logits (B, 1 + structures, i, j, k).

    Raises:
        FseftError: The tensors do not fit the network.
    """
    return load_adapter_onto(load_adapter_backbone(adapter), adapter)


def load_adapter_backbone(adapter: OpenAdapter) -> Backbone:
    """Loads the network that an adapter was trained on, without the adapter."""
    manifest = adapter.manifest
    return load_backbone(
        adapter.card,
        adapter.weights,
        manifest.preprocessing.network_channels,
        structures=len(manifest.labels),
        seed=manifest.init_seed,
    )


def load_adapter_onto(model: Backbone, adapter: OpenAdapter) -> nn.Module:
    """Applies an adapter to its backbone, whose head is replaced.

    Args:
        model: The backbone of the adapter; it may have the head of another one.
        adapter: The adapter.

    Returns:
        The network with the adapter merged into it.

    Raises:
        FseftError: The file is damaged, or has changed since it was opened.
    """
    manifest, method = adapter.manifest, adapter.method
    own = {name: name for name in manifest.labels} if adapter.own_model else None
    structures, untrained = list(manifest.labels), not method.spec.trains
    model.put_head(structures, seed=manifest.init_seed, matched=own, suppress_unmatched=untrained)
    adapted = apply_method(
        model.architecture, model.network, method, manifest.init_seed, model.missing_keys
    )
    if adapter.own_model is None:
        _load_tensors(adapted, adapter)
    return adapted.merge()


def _load_tensors(adapted: AdaptedNetwork, adapter: OpenAdapter) -> None:
    """Loads the tensors of an adapter."""
    try:
        adapted.load_state_dict(read_tensors(adapter.file))
    except FseftError as error:
        raise error.located(file=adapter.path) from error
    if file_digest(adapter.file) != adapter.sha256:
        cause = "the adapter was replaced while it was read"
        raise FseftError(cause, file=adapter.path, hint="Run again.")


def _checked_card(path: Path, manifest: Manifest, model: FoundationModel) -> ModelCard:
    """Returns the card of the model, with the network of the adapter."""
    network = {"architecture": manifest.architecture, "hparams": manifest.hparams}
    installed = model.card.model_dump(mode="json", include={"architecture", "hparams"})
    if manifest.backbone_sha256 and network != installed:
        raise FseftError(
            f"{_MISMATCH}: the network of {model.name!r} has changed since",
            file=path,
            hint=f"It was {manifest.architecture} with {manifest.hparams}.",
        )
    return model.card.model_copy(update=network)


def _checked_weights(path: Path, manifest: Manifest, model: FoundationModel) -> Weights:
    """Returns the weights of the model if they are those of the training."""
    weights = model.weights
    if weights.sha256 != manifest.backbone_sha256:
        raise FseftError(
            f"{_MISMATCH}: the installed weights of {model.name!r} are not those of the training",
            file=path,
            hint=f"Get the weights whose sha256 starts with {manifest.backbone_sha256[:12]}.",
        )
    return weights


def _method(manifest: Manifest, path: Path) -> ConfiguredMethod:
    """Resolves the method of an adapter by its full name, `package:name`, with its settings."""
    method = manifest.method
    package = f"{method.distribution} {method.version}"
    name = method.name.rpartition(":")[2]
    full_name = f"{method.distribution}:{name}"
    try:
        spec = registry().method(full_name)
    except FseftError as error:
        raise FseftError(
            f"the adapter needs the method {name!r} of the package {package}, which is not "
            "installed or cannot be used",
            file=path,
            hint="Install it, or check it with `fseft plugins`.",
        ) from error
    try:
        config = spec.config.model_validate_json(json.dumps(manifest.config))
    except ValidationError as error:
        raise FseftError(
            f"the method {full_name!r} does not accept these settings "
            f"({describe_validation(error)})",
            hint=f"Install {package}, with which the adapter was trained.",
            file=path,
        ) from error
    installed = registry().provenance("method", full_name).version
    if method.distribution != "fseft" and method.version != installed:
        logger.warning(
            "%s: was trained with %s, and %s is installed: results may differ",
            path,
            package,
            installed,
        )
    return ConfiguredMethod(
        full_name, spec, config, TrainingConfig(), manifest.decoder, manifest.bottleneck
    )


def apply_method(
    architecture: Architecture,
    network: nn.Module,
    method: ConfiguredMethod,
    seed: int,
    missing_keys: Sequence[str] = (),
) -> AdaptedNetwork:
    """Applies a method to a network.

    Args:
        architecture: Architecture of the network.
        network: The network; changed in place.
        method: The method with its settings, and the modes of decoder and bottleneck.
        seed: Seed of new weights.
        missing_keys: Parameters without pre-trained values, which are trained as well: random
            weights are never frozen.

    Raises:
        FseftError: The method cannot be applied to this network.
    """
    component = registry().create("method", method.name, method.config)
    modes = method.part_modes
    adapted = adapt_network(
        architecture, network, component, seed=seed, missing_keys=missing_keys, **modes
    )
    if method.spec.access == "black-box" and set(modes.values()) == {"frozen"}:
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
