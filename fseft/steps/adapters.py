"""Adapters on disk: one safetensors file with the trained tensors and a manifest in its header."""

from __future__ import annotations

import json
from importlib import metadata
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fseft.documents import Manifest
from fseft.errors import FseftError
from fseft.learn import backbone
from fseft.learn.adaptation import adapt_network
from fseft.learn.heads import new_head
from fseft.learn.roles import TextDriving
from fseft.registry import registry
from fseft.steps.models import find_card, find_weights
from fseft.store import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from torch import Tensor, nn

    from fseft.documents import ModelCard
    from fseft.learn.method import Adapted
    from fseft.learn.roles import Architecture
    from fseft.steps.models import Weights
    from fseft.store import Store

HEADER = "fseft"
NAME = "adapter.safetensors"


def write_adapter(path: Path, tensors: Mapping[str, Tensor], manifest: Manifest, *, half: bool = False) -> None:
    """Write an adapter atomically; in half precision, if wanted, what is no index or count."""
    from safetensors.torch import save

    if half:
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    with replacing(path) as temporary:
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
        path.open("rb").close()  # safe_open tells a file that may not be read as one that is not there
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
    except OSError as error:
        raise FseftError(f"cannot be read ({error.strerror or error})", file=path, hint="Check its rights.") from error
    except SafetensorError as error:
        raise FseftError(f"is not a safetensors file ({error})", file=path, hint="Copy it again.") from error
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


def restore(path: Path, store: Store) -> tuple[nn.Module, Manifest]:
    """The adapted network of an adapter file: backbone, method and trained tensors, merged to a plain module.

    Raises:
        FseftError: The adapter is of another backbone, or its method or model is not installed.
    """
    from safetensors.torch import load_file

    manifest = read_manifest(path)
    card, weights = find_backbone(path, manifest, store)
    path = path / NAME if path.is_dir() else path
    method = method_name(manifest, path)
    architecture, network, random = make_network(
        card,
        weights,
        manifest.labels,
        len(manifest.channels),
        seed=manifest.seed,
        unmatched_never=not registry().method(method).trains,
    )
    adapted = apply_method(architecture, network, method, manifest.config, manifest.decoder, manifest.seed, random)
    try:
        adapted.load_state_dict(load_file(path))
    except FseftError as error:
        raise error.located(file=path) from error
    return adapted.merge(), manifest


def find_backbone(path: Path, manifest: Manifest, store: Store) -> tuple[ModelCard, Weights | None]:
    """The model that an adapter was made with, and its weights; none where it started from random ones.

    Raises:
        FseftError: The model here is another one, or missing.
    """
    card = find_card(manifest.model, store)
    made_with = {"architecture": manifest.architecture, "hparams": manifest.hparams}
    if manifest.backbone_sha256 and made_with != card.model_dump(mode="json", include={"architecture", "hparams"}):
        raise FseftError(
            f"the adapter is for another backbone: {card.name!r} is built otherwise now than when it was made",
            file=path,
            hint=f"It was {manifest.architecture} with {manifest.hparams}.",
        )
    weights = find_weights(manifest.model, store) if manifest.backbone_sha256 else None
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


def make_network(
    card: ModelCard,
    weights: Weights | None,
    structures: Sequence[str] | Mapping[str, int],
    channels: int,
    *,
    seed: int,
    matched: Mapping[str, str] | None = None,
    unmatched_never: bool = False,
) -> tuple[Architecture, nn.Module, list[str]]:
    """A network with the model's weights and a head for the structures.

    The third result names the parameters that are random although there are weights: these hold an encoder only.

    Args:
        card: The model.
        weights: The model's; random ones without.
        structures: Names, in the order of the rows after the background.
        channels: Input channels of the data.
        seed: Draws what is random.
        matched: Structure -> class whose row is copied.
        unmatched_never: Rows without a match never win (zero-shot).
    """
    import torch
    from safetensors.torch import load_file

    architecture = backbone.architecture(card.architecture)
    names = list(structures)
    out = output_channels(card) if weights else 1 + len(names)
    network = backbone.build(architecture, in_channels=channels, out_channels=out, hparams=card.hparams, seed=seed)
    if weights is None:
        return architecture, network, []
    if channels != card.contract.channels:
        raise FseftError(
            f"the model {card.name!r} takes {card.contract.channels} channel(s), the data have {channels}",
            hint="Choose the channel that the model was trained on, or --model none.",
        )
    random = backbone.load_weights(
        network, load_file(weights.path), source=str(weights.path), partial=card.scope != "network"
    )
    texts = architecture.take_text_head(network) if isinstance(architecture, TextDriving) else None
    old_head = {target.name for target in architecture.targets(network) if target.part == "head"}
    random = [name for name in random if name.rpartition(".")[0] not in old_head]
    if unmatched_never and texts is not None and isinstance(architecture, TextDriving):
        indices = [card.classes.index(matched[name]) if matched and name in matched else None for name in names]
        architecture.replace_head(network, architecture.text_driven(network, texts, indices))
        return architecture, network, random
    head = new_head(
        architecture.head(network),
        names,
        card.classes,
        card.activation,
        matched or {},
        torch.Generator().manual_seed(seed),
        never=unmatched_never,
    )
    architecture.replace_head(network, head)
    return architecture, network, random


def output_channels(card: ModelCard) -> int:
    """Of the model's own head: its classes, and a background for softmax; one where the weights hold no head."""
    return len(card.classes) + (card.activation == "softmax") if card.scope == "network" else 1


def apply_method(
    architecture: Architecture,
    network: nn.Module,
    name: str,
    config: Mapping[str, Any],
    decoder: str,
    seed: int,
    random: Sequence[str] = (),
) -> Adapted:
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
    with registry().blamed("method", name):
        return adapt_network(architecture, network, method, decoder=decoder, seed=seed, random=random)


def versions() -> dict[str, str]:
    """What a result depends on."""
    from fseft import __version__

    return {"fseft": __version__, **{name: metadata.version(name) for name in ("torch", "monai")}}
