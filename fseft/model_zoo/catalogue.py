"""Which foundation models there are: those of plugins, imported or not, and those made in the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, did_you_mean
from fseft.plugin import FoundationModelSpec
from fseft.registry import NAME, registry
from fseft.schemas import ModelCard
from fseft.workspace import file_digest, read_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.workspace import Workspace

SCRATCH = "none"
"""The name that stands for training from random weights, planned from the fingerprint alone."""

DEFAULT_ARCHITECTURE = "resunet"
MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"


def scratch_card() -> ModelCard:
    """The card of `--model none`: no weights, no classes, and a contract that leaves everything open."""
    return ModelCard(
        name=SCRATCH,
        summary="random weights, planned from the fingerprint",
        architecture=DEFAULT_ARCHITECTURE,
    )


def model_names(store: Workspace) -> list[str]:
    """All names that `--model` takes."""
    return sorted({SCRATCH, *registry().registrations("model"), *store.models()})


def valid_name(name: str, option: str) -> str:
    """A name for a model of the workspace, or an error.

    Raises:
        FseftError: It is none.
    """
    if not NAME.fullmatch(name) or name == SCRATCH:
        raise FseftError(
            f"{option} {name}: is no name for a model", hint="Use a-z, 0-9, '.', '_' and '-'."
        )
    return name


def find_model_card(name: str, store: Workspace) -> ModelCard:
    """The card of a model; a model of the workspace goes before a plugin's of the same name.

    Of an imported model, it tells the weights that are here.

    Raises:
        FseftError: Unknown model, with the nearest names.
    """
    if name == SCRATCH:
        return scratch_card()
    if name in store.models():
        return read_card(name, store)
    if ":" in name or name in {
        known.rpartition(":")[2] for known in registry().registrations("model")
    }:
        return model_spec(name).card.model_copy(update={**_as_imported(name, store), "name": name})
    own = (
        ""
        if store.models()
        else " A model of your own lies in the --workspace that it was made in."
    )
    raise FseftError(f"unknown model {name!r}", hint=did_you_mean(name, model_names(store)) + own)


def model_spec(name: str) -> FoundationModelSpec:
    """The entry of a plugin's model.

    Raises:
        FseftError: Unknown, or claimed by two packages.
    """
    spec = registry().resolve("model", name).spec
    assert isinstance(spec, FoundationModelSpec)  # noqa: S101 - the registry lets no other in
    return spec


def imported_folder(name: str, store: Workspace) -> Path:
    """Where the weights of a plugin's model lie once they are imported; packages may have models of one name."""
    offer = registry().resolve("model", name)
    return store.imported(offer.source.distribution, offer.spec.name)


def _as_imported(name: str, store: Workspace) -> dict[str, Any]:
    """What the entry of a public checkpoint cannot know: facts about the weights here, or all that their file told."""
    spec, path = model_spec(name), imported_folder(name, store) / MODEL_FILE
    if spec.checkpoint is None or not path.is_file():
        return {}
    card = dict(read_card(name, store))
    return (
        card if spec.checkpoint.card else {field: card[field] for field in ("sha256", "provenance")}
    )


def read_card(name: str, store: Workspace) -> ModelCard:
    """The card beside a model's weights.

    Raises:
        FseftError: It is missing or damaged, and how to get the model again.
    """
    path, remedy = weights_path(name, store)
    try:
        return read_document(path.with_name(MODEL_FILE), ModelCard)
    except FseftError as error:
        raise FseftError(error.cause, file=error.file, hint=remedy) from error


@dataclass(frozen=True)
class Weights:
    """A model's weights on this machine, and the sha256 of the file as it is."""

    path: Path
    sha256: str


def find_weights(name: str, store: Workspace) -> Weights:
    """The safetensors file with a model's weights; reads it once, for its hash.

    Raises:
        FseftError: The file is missing, or not the one that the card was written for.
    """
    path, remedy = weights_path(name, store)
    if not path.is_file():
        raise FseftError(f"the weights of the model {name!r} are missing", file=path, hint=remedy)
    found, expected = file_digest(path), find_model_card(name, store).sha256
    if expected and found != expected:
        raise FseftError(
            f"the weights of the model {name!r} have changed on the disk", file=path, hint=remedy
        )
    return Weights(path, found)


def has_weights(name: str, store: Workspace) -> bool:
    """Whether a model's weights are here; they are not read."""
    return weights_path(name, store)[0].is_file()


def weights_path(name: str, store: Workspace) -> tuple[Path, str]:
    """Where a model's weights lie, or would, and how to get them."""
    if name in store.models():
        return store.model(
            name
        ) / WEIGHTS_FILE, "Make them again with `fseft pretrain` or `fseft models import`."
    spec = model_spec(name)
    if spec.checkpoint is None:
        return registry().create("model", name), "Install its package again."
    by_hand = (
        f"{spec.checkpoint.file} from {spec.card.home}, then `fseft models import {name} FILE`."
    )
    remedy = (
        f"Run `fseft models pull {name}`, or get {by_hand}"
        if spec.checkpoint.url
        else f"Get {by_hand}"
    )
    return imported_folder(name, store) / WEIGHTS_FILE, remedy
