"""Catalogue of foundation models: those of plugins, imported or not, and of the workspace."""

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
"""Name that stands for random weights, planned from the fingerprint alone."""

DEFAULT_ARCHITECTURE = "resunet"
MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"


def scratch_card() -> ModelCard:
    """Card of the model `none`, without weights and classes, for any preprocessing."""
    return ModelCard(
        name=SCRATCH,
        summary="random weights, planned from the fingerprint",
        architecture=DEFAULT_ARCHITECTURE,
    )


def model_names(workspace: Workspace) -> list[str]:
    """Names of all models, including `none`."""
    return sorted({SCRATCH, *registry().registrations("model"), *workspace.models()})


def check_model_name(name: str) -> None:
    """Refuses invalid names of new models.

    Raises:
        FseftError: The name has other characters than allowed, or is reserved.
    """
    if not NAME.fullmatch(name) or name == SCRATCH:
        cause = f"{name!r} is not a valid name of a model"
        raise FseftError(cause, hint="Use a-z, 0-9, '.', '_' and '-'.")


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
        weights_path: The safetensors file, which may not be downloaded yet; None for random
            weights.
        remedy: How to obtain the weights where they are missing.
        source: The plugin package that provides the model; None for a model of the workspace and
            for random weights.
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
        """Loads the architecture of the network (imports torch).

        Raises:
            FseftError: The architecture is unknown or cannot be loaded.
        """
        from fseft.learn.networks.backbone import get_architecture

        return get_architecture(self.card.architecture)

    def weights(self) -> Weights:
        """Verifies the file with the weights by its sha256, which reads the file once.

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
    """Resolves the name of a foundation model; no weights are read.

    Args:
        name: As listed by `fseft models`; "none" stands for random weights. A model of the
            workspace takes precedence over a plugin's model of the same name.
        workspace: Where models of the user are stored.

    Raises:
        FseftError: The model is unknown (with the nearest names), or its card is missing or
            damaged.
    """
    if name == SCRATCH:
        return FoundationModel(scratch_card())
    in_workspace = name in workspace.models()
    if not in_workspace and not _is_registered(name):
        hint = did_you_mean(name, model_names(workspace))
        if not workspace.models():
            hint += " Your models are stored in the workspace of their pre-training."
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


def find_model_card(name: str, workspace: Workspace) -> ModelCard:
    """Returns the card of a model; see `find_model`."""
    return find_model(name, workspace).card


def find_weights(name: str, workspace: Workspace) -> Weights:
    """Verifies and returns the weights of a model; see `FoundationModel.weights`."""
    return find_model(name, workspace).weights()


def model_spec(name: str) -> FoundationModelSpec:
    """Returns the registered entry of a plugin's model.

    Raises:
        FseftError: The model is unknown, or two packages provide it.
    """
    spec = registry().resolve("model", name).spec
    assert isinstance(spec, FoundationModelSpec)  # noqa: S101 - checked at registration
    return spec


def imported_folder(name: str, workspace: Workspace) -> Path:
    """Returns the folder of a plugin's model after its import, which names the package."""
    registration = registry().resolve("model", name)
    return workspace.imported(registration.source.distribution, registration.spec.name)


def _as_imported(name: str, workspace: Workspace) -> dict[str, Any]:
    """Returns fields of the card at import, which take precedence over the registered card."""
    spec, path = model_spec(name), imported_folder(name, workspace) / MODEL_FILE
    if spec.checkpoint is None or not path.is_file():
        return {}
    card = read_card(name, workspace)
    if spec.checkpoint.card:  # the file determines the whole card
        return dict(card)
    return {"sha256": card.sha256, "provenance": card.provenance}


def read_card(name: str, workspace: Workspace) -> ModelCard:
    """Reads the card that is stored with a model's weights.

    Raises:
        FseftError: The card is missing or damaged.
    """
    path, remedy = weights_path(name, workspace)
    try:
        return read_document(path.with_name(MODEL_FILE), ModelCard)
    except FseftError as error:
        raise FseftError(error.cause, file=error.file, hint=remedy) from error


def has_weights(name: str, workspace: Workspace) -> bool:
    """Returns whether the file of a model's weights exists; the file is not read."""
    return weights_path(name, workspace)[0].is_file()


def weights_path(name: str, workspace: Workspace) -> tuple[Path, str]:
    """Returns the path of a model's weights, which may not exist, and how to obtain them."""
    if name in workspace.models():
        remedy = "Repeat its pre-training, or `fseft models import`."
        return workspace.model(name) / WEIGHTS_FILE, remedy
    spec = model_spec(name)
    if spec.checkpoint is None:
        return registry().create("model", name), "Install its package again."
    manual = f"{spec.checkpoint.file} from {spec.card.home}, then `fseft models import {name} FILE`"
    remedy = f"Download {manual}."
    if spec.checkpoint.url:
        remedy = f"Run `fseft models pull {name}`, or download {manual}."
    return imported_folder(name, workspace) / WEIGHTS_FILE, remedy
