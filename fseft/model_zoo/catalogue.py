"""Which foundation models there are: those of plugins, imported or not, and those made in the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, did_you_mean
from fseft.plugin import FoundationModelSpec
from fseft.registry import NAME, registry
from fseft.schemas import ModelCard, Provenance
from fseft.workspace import file_digest, read_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.learn.networks.roles import Architecture
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


@dataclass(frozen=True)
class Weights:
    """The verified weights of a model: a safetensors file and the sha256 of its bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class FoundationModel:
    """A foundation model of the catalogue, resolved once by `find_model` and then passed on.

    Attributes:
        card: Architecture, preprocessing contract, classes and licence.
        weights_path: The safetensors file, which may still have to be downloaded; None for random weights.
        remedy: How to obtain the weights where they are missing.
        source: The plugin package that offers the model; None for a model of the workspace and for random weights.
    """

    card: ModelCard
    weights_path: Path | None = None
    remedy: str = ""
    source: Provenance | None = None

    @property
    def name(self) -> str:
        """The name of the model, as in `fseft models`."""
        return self.card.name

    @property
    def pretrained(self) -> bool:
        """Whether the model has weights; "none" starts from random ones."""
        return self.weights_path is not None

    @property
    def has_weights(self) -> bool:
        """Whether the file with the weights exists; the file is not read."""
        return self.weights_path is not None and self.weights_path.is_file()

    def architecture(self) -> Architecture:
        """Load the architecture of the network (imports torch).

        Raises:
            FseftError: The architecture is unknown or cannot be loaded.
        """
        from fseft.learn.networks.backbone import get_architecture

        return get_architecture(self.card.architecture)

    def weights(self) -> Weights:
        """Verify the file with the weights by its sha256, which reads the file once.

        Raises:
            FseftError: The file is missing, or differs from the one that the card describes.
        """
        path = self.weights_path
        if path is None or not path.is_file():
            cause = f"the weights of the model {self.name!r} are missing"
            raise FseftError(cause, file=path, hint=self.remedy)
        sha256 = file_digest(path)
        if self.card.sha256 and sha256 != self.card.sha256:
            cause = f"the weights of the model {self.name!r} have changed on the disk"
            raise FseftError(cause, file=path, hint=self.remedy)
        return Weights(path, sha256)


def find_model(name: str, workspace: Workspace) -> FoundationModel:
    """Resolve the name of a foundation model; no weights are read.

    Args:
        name: As listed by `fseft models`; "none" stands for random weights. A model of the workspace takes
            precedence over a plugin's model of the same name.
        workspace: Where models of the user are stored.

    Raises:
        FseftError: The model is unknown (with the nearest names), or its card is missing or damaged.
    """
    if name == SCRATCH:
        return FoundationModel(scratch_card())
    in_workspace = name in workspace.models()
    if not in_workspace and not _is_registered(name):
        hint = did_you_mean(name, model_names(workspace))
        if not workspace.models():
            hint += " A model of your own lies in the --workspace that it was made in."
        raise FseftError(f"unknown model {name!r}", hint=hint)
    path, remedy = weights_path(name, workspace)
    if in_workspace:
        return FoundationModel(read_card(name, workspace), path.absolute(), remedy)
    updates = {**_as_imported(name, workspace), "name": name}
    card = model_spec(name).card.model_copy(update=updates)
    return FoundationModel(card, path, remedy, registry().provenance("model", name))


def _is_registered(name: str) -> bool:
    """Whether a plugin offers the name, or it is written in full as `package:name`."""
    return ":" in name or name in {
        key.rpartition(":")[2] for key in registry().registrations("model")
    }


def find_model_card(name: str, store: Workspace) -> ModelCard:
    """Return the card of a model; see `find_model`."""
    return find_model(name, store).card


def find_weights(name: str, store: Workspace) -> Weights:
    """Verify and return the weights of a model; see `FoundationModel.weights`."""
    return find_model(name, store).weights()


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
