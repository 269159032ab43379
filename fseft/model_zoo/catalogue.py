"""Catalogue of foundation models: those of plugins, imported or not, and of the workspace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError, did_you_mean
from fseft.plugin import FoundationModelSpec
from fseft.registration import NAME
from fseft.registry import registry
from fseft.schemas import ModelCard, Provenance
from fseft.workspace import file_digest, read_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.learn.networks.roles import Architecture
    from fseft.workspace import Workspace

SCRATCH = "none"
"""Name that stands for random weights, planned from the fingerprint alone."""

AUTO = "auto"
"""Name that stands for the recommended model, or for the method that suits the training cases."""

DEFAULT_ARCHITECTURE = "resunet"
MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"


def scratch_card() -> ModelCard:
    """Card of the model `none`, without weights and classes, for any preprocessing."""
    return ModelCard(
        name=SCRATCH,
        summary="random weights, planned from the fingerprint",
        architecture=DEFAULT_ARCHITECTURE,
        # A norm before the head slows the first steps; the finest level takes most of the time.
        hparams={"features": 8, "head_norm": False},
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
    """The verified weights of a model.

    Attributes:
        path: The safetensors file.
        sha256: Digest of its bytes, in hexadecimal digits.
    """

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
        spec: The entry of that package.
    """

    card: ModelCard
    weights_path: Path | None = None
    remedy: str = ""
    source: Provenance | None = None
    spec: FoundationModelSpec | None = field(default=None, repr=False, compare=False)

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
        """Loads the architecture of the network.

        Raises:
            FseftError: The architecture is unknown or cannot be loaded.
        """
        from fseft.learn.networks.backbone import get_architecture

        return get_architecture(self.card.architecture)

    @cached_property
    def weights(self) -> Weights:
        """The weights; the file is read once, to verify its sha256.

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
        return FoundationModel(scratch_card(), remedy="They are random.")
    if name in workspace.models():
        path = workspace.model(name).absolute() / WEIGHTS_FILE
        remedy = "Repeat its pre-training, or `fseft models import`."
        return FoundationModel(read_card(path, remedy), path, remedy)
    model = registered_model(name, workspace)
    return replace(model, card=model.card.model_copy(update=_as_imported(model)))


def registered_model(name: str, workspace: Workspace) -> FoundationModel:
    """Resolves the name of a model of a plugin, as its package describes it before any import.

    Args:
        name: Short name, or `distribution:name`.
        workspace: Its models are suggested too if the name is unknown.

    Raises:
        FseftError: The model is unknown (with the nearest names), or two packages provide it.
    """
    if ":" not in name and name not in _short_names():
        hint = did_you_mean(name, model_names(workspace))
        if not workspace.models():
            hint += " Your models are stored in the workspace of their pre-training."
        raise FseftError(f"unknown model {name!r}", hint=hint)
    spec = registry().resolve("model", name).spec
    assert isinstance(spec, FoundationModelSpec)  # noqa: S101 - checked at registration
    card, source = spec.card.model_copy(update={"name": name}), registry().provenance("model", name)
    if spec.checkpoint is None:
        path, remedy = registry().create("model", name), "Install its package again."
        return FoundationModel(card, path, remedy, source, spec)
    path = workspace.imported(source.distribution, spec.name) / WEIGHTS_FILE
    manual = f"{spec.checkpoint.file} from {spec.card.home}, then `fseft models import {name} FILE`"
    remedy = f"Download {manual}."
    if spec.checkpoint.url:
        remedy = f"Run `fseft models pull {name}`, or download {manual}."
    return FoundationModel(card, path, remedy, source, spec)


def _short_names() -> set[str]:
    """Names of the models of plugins, without those of their packages."""
    return {name.rpartition(":")[2] for name in registry().registrations("model")}


def _as_imported(model: FoundationModel) -> dict[str, Any]:
    """Returns fields of the card at import, which take precedence over the registered card."""
    path, spec = model.weights_path, model.spec
    if not spec or not spec.checkpoint or not path or not path.with_name(MODEL_FILE).is_file():
        return {}
    card = read_card(path, model.remedy)
    if spec.checkpoint.card:  # the file determines the whole card
        return {**dict(card), "name": model.name}
    return {"sha256": card.sha256, "provenance": card.provenance}


def read_card(weights: Path, remedy: str) -> ModelCard:
    """Reads the card that is stored with a model's weights.

    Args:
        weights: The file with the weights.
        remedy: Hint of the error.

    Raises:
        FseftError: The card is missing or damaged.
    """
    try:
        return read_document(weights.with_name(MODEL_FILE), ModelCard)
    except FseftError as error:
        raise FseftError(error.cause, file=error.file, hint=remedy) from error
