"""Conversion of public checkpoints to safetensors, and verification of imported models."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file

from fseft.errors import FseftError, pluralise
from fseft.learn.networks import backbone
from fseft.learn.networks.state_dict_mapping import (
    LoadReport,
    match_state_dict,
    matching_checkpoints,
    unwrap,
)
from fseft.model_zoo.adapter_file import versions
from fseft.model_zoo.catalogue import (
    MODEL_FILE,
    WEIGHTS_FILE,
    check_model_name,
    read_card,
)
from fseft.model_zoo.import_options import ImportOptions
from fseft.model_zoo.import_record import import_record, measured_output, outputs_agree
from fseft.model_zoo.loading import output_channels
from fseft.model_zoo.tensor_checks import check_tensors
from fseft.model_zoo.weights_io import read_weights, write_weights
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.registry import import_object, registry
from fseft.workspace import atomic_write, file_digest, file_lock, write_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.schemas import ModelCard
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

NO_OPTIONS = ImportOptions()
"""The user states nothing about a file."""


@dataclass(frozen=True)
class ConvertedModel:
    """A converted checkpoint.

    Attributes:
        card: Card of the model.
        report: Report on the tensors of the file.
        tensors: Tensors by the network's names, in the precision of the file.
    """

    card: ModelCard
    report: LoadReport
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class ImportedModel:
    """A model that is ready for use.

    Attributes:
        card: Card of the model.
        report: Report on the tensors of the public file.
        folder: Folder of weights and card.
        replaced: The sha256 of other weights that were replaced; empty if there were none.
        is_new: Whether this call has imported it.
    """

    card: ModelCard
    report: LoadReport
    folder: Path
    replaced: str = ""
    is_new: bool = True


@dataclass(frozen=True)
class VerifiedModel:
    """A model whose weights and output are those of its card.

    Attributes:
        card: Card of the model.
        report: Report on the tensors of the public file; None for a model that was pre-trained.
    """

    card: ModelCard
    report: LoadReport | None


@dataclass(frozen=True)
class PublicModel:
    """A model of a plugin whose weights are a public checkpoint of their owner.

    Attributes:
        name: Name of the model; `package:name` where two packages offer the same name.
        spec: The entry of its package.
        checkpoint: The public file.
        folder: Folder of the converted weights, in the model cache of the user.
    """

    name: str
    spec: FoundationModelSpec
    checkpoint: CheckpointSpec
    folder: Path


def public_model(model: FoundationModel) -> PublicModel:
    """Returns a model, from `registered_model`, as one whose weights are imported.

    Raises:
        FseftError: The package of the model includes the weights.
    """
    spec, path = model.spec, model.weights_path
    if spec is None or spec.checkpoint is None or path is None:
        cause = f"the package of the model {model.name!r} includes its weights"
        raise FseftError(cause, hint="No import is necessary.")
    return PublicModel(model.name, spec, spec.checkpoint, path.parent)


def import_model(
    model: PublicModel,
    file: Path,
    workspace: Workspace,
    options: ImportOptions = NO_OPTIONS,
    *,
    save_as: str = "",
) -> ImportedModel:
    """Converts the public checkpoint of a model, and stores it in the cache of the user.

    Args:
        model: The model.
        file: Its public checkpoint.
        workspace: Workspace of a model that is stored under another name.
        options: What the user states about the file.
        save_as: Name under which the model is stored in the workspace instead; empty for the cache.

    Raises:
        FseftError: The file is incomplete or belongs to another model, or the name is taken; no
            file is written then.
    """
    folder = _new_folder(save_as, workspace) if save_as else model.folder
    converted = convert_checkpoint(model, file, options)
    with file_lock(folder):
        if save_as:
            _new_folder(save_as, workspace)  # again: another process may have taken the name
        return write_converted(converted, folder, save_as)


def convert_checkpoint(
    model: PublicModel, file: Path, options: ImportOptions = NO_OPTIONS
) -> ConvertedModel:
    """Reads the public checkpoint of a model, and computes the output of its network.

    Args:
        model: The model.
        file: Its public checkpoint.
        options: What the user states about the file.

    Raises:
        FseftError: The file is incomplete, or belongs to another model.
    """
    spec, checkpoint = model.spec, model.checkpoint
    entry = options.apply(spec.card)
    content = _read(checkpoint, file, options)
    try:
        tensors = unwrap(content, checkpoint.unwrap, chosen=options.weights)
        others = _other_matches(model, tensors)
        card = import_object(checkpoint.card)(entry, file, content) if checkpoint.card else entry
        architecture, network = _build_network(card, seed=0)
        matched, report = _match_tensors(tensors, checkpoint, network, others)
        check_tensors(matched, network.state_dict())
    except FseftError as error:
        raise error.located(file=file) from error
    network.load_state_dict(_in_network_precision(matched, network), strict=False)
    provenance = {
        "file": file.name,
        "file_sha256": file_digest(file),
        "load_report": report.model_dump(mode="json"),
        "output": measured_output(architecture, network, card),
        "versions": versions(),
    }
    update = {"provenance": provenance, "parameters": backbone.count_parameters(network)}
    _warn_of_assumed_orientation(card)
    return ConvertedModel(card.model_copy(update=update), report, matched)


def _read(checkpoint: CheckpointSpec, file: Path, options: ImportOptions) -> Any:
    """Returns the content of a file, by the function of its plugin if it has one."""
    if checkpoint.read:
        return import_object(checkpoint.read)(file)
    return read_weights(file, allow_pickle=options.allow_pickle)


def _warn_of_assumed_orientation(card: ModelCard) -> None:
    if card.contract.assumed_orientation:
        logger.warning(
            "THE AXES OF THE TRAINING SCANS OF %s ARE UNKNOWN: %s is assumed (x, y, z), and scans "
            "would be turned or mirrored if that is wrong. Import it again with `like`, one of the "
            "training scans, or `orientation`; until then it is not used without training",
            card.name,
            card.contract.orientation[::-1],
        )


def write_converted(converted: ConvertedModel, folder: Path, name: str = "") -> ImportedModel:
    """Writes weights and card of a converted model atomically.

    Args:
        converted: The model.
        folder: Target folder; an existing one is replaced.
        name: Name of the model; empty for its own.

    Raises:
        FseftError: The folder cannot be written, or the disk is full.
    """
    existing = folder / WEIGHTS_FILE
    replaced = file_digest(existing) if existing.is_file() else ""
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        write_weights(temporary / WEIGHTS_FILE, converted.tensors)
        update = {
            "name": name or converted.card.name,
            "sha256": file_digest(temporary / WEIGHTS_FILE),
        }
        card = converted.card.model_copy(update=update)
        write_document(temporary / MODEL_FILE, card)
    if replaced == card.sha256:
        replaced = ""
    return ImportedModel(card, converted.report, folder, replaced)


def find_imported(model: PublicModel, file_sha256: str) -> ImportedModel | None:
    """Returns a model that was imported from a certain file, if its weights are intact.

    Args:
        model: The model.
        file_sha256: Digest of the public checkpoint; empty if unknown.
    """
    weights = model.folder / WEIGHTS_FILE
    try:
        card = read_card(weights, "")
        report = import_record(card).load_report
    except FseftError:
        return None
    if not (report and file_sha256) or card.provenance.get("file_sha256") != file_sha256:
        return None
    if not weights.is_file() or file_digest(weights) != card.sha256:
        return None
    return ImportedModel(card, report, model.folder, is_new=False)


def verify_model(model: FoundationModel) -> VerifiedModel:
    """Verifies the file of a model, and the output of its network for a fixed input.

    Args:
        model: The model.

    Raises:
        FseftError: The file has changed, or the installed libraries compute another output.
    """
    weights = model.weights
    card = read_card(weights.path, model.remedy)
    record = import_record(card)
    if record.output is None:
        raise FseftError(
            f"no output of the model {model.name!r} is stored for comparison",
            hint="Its weights have the sha256 of its card.",
        )
    architecture, network = _build_network(card, seed=0)
    tensors = _in_network_precision(load_file(weights.path), network)
    network.load_state_dict(tensors, strict=False)
    output = measured_output(architecture, network, card)
    if not outputs_agree(record.output.model_dump(), output):
        libraries = ", ".join(f"{name} {version}" for name, version in record.versions.items())
        raise FseftError(
            f"the output of the model {model.name!r} differs from that at import (mean "
            f"{output['mean']:.4g}, expected {record.output.mean:.4g})",
            hint=f"Install {libraries}, or import it again.",
        )
    return VerifiedModel(card, record.load_report)


def _new_folder(name: str, workspace: Workspace) -> Path:
    """Folder of a new model of the workspace."""
    check_model_name(name)
    folder = workspace.model(name)
    if name in workspace.models():
        cause = f"a model {name!r} exists already"
        raise FseftError(cause, file=folder, hint="Choose another name.")
    if name in registry().names("model"):
        cause = f"the name {name!r} belongs to a model of a plugin"
        raise FseftError(cause, hint="Choose another name.")
    return folder


def _other_matches(model: PublicModel, tensors: Mapping[str, Tensor]) -> list[str]:
    """Other models whose checkpoint has the same names of tensors.

    Raises:
        FseftError: The tensors do not belong to this model.
    """
    specs = {key: item.spec for key, item in registry().registrations("model").items()}
    checkpoints = {
        key: item.checkpoint
        for key, item in specs.items()
        if isinstance(item, FoundationModelSpec) and item.checkpoint
    }
    matches = matching_checkpoints(tensors, checkpoints)
    if not any(specs[key] is model.spec for key in matches):
        hint = f"Pass its public checkpoint; see `fseft models show {model.name}`."
        if matches:
            hint = f"It looks like that of {' or '.join(matches)}."
        count = pluralise(len(tensors), "tensor")
        cause = f"is not a checkpoint of {model.name!r} ({count}, first {min(tensors)})"
        raise FseftError(cause, hint=hint)
    return [key for key in matches if specs[key] is not model.spec]


def _match_tensors(
    tensors: dict[str, Tensor], checkpoint: CheckpointSpec, network: nn.Module, others: list[str]
) -> tuple[dict[str, Tensor], LoadReport]:
    """Tensors of the network among those of the file.

    Raises:
        FseftError: They do not fit; names other models that the file may belong to.
    """
    try:
        return match_state_dict(tensors, checkpoint, network.state_dict(keep_vars=True))
    except FseftError as error:
        owners = f" It may be that of {' or '.join(others)}." if others else ""
        raise FseftError(error.cause, hint=error.hint + owners) from error


def _build_network(card: ModelCard, seed: int) -> tuple[Architecture, nn.Module]:
    architecture = backbone.get_architecture(card.architecture)
    network = backbone.build_network(
        architecture,
        in_channels=card.contract.channels,
        out_channels=output_channels(card),
        hparams=card.hparams,
        seed=seed,
    )
    return architecture, network


def _in_network_precision(tensors: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Tensors, each converted to the dtype that it has in the network."""
    state = network.state_dict()
    converted = {}
    for name, tensor in tensors.items():
        converted[name] = tensor.to(state[name].dtype)
    return converted
