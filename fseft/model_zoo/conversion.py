"""`fseft models import` and `verify`: a public checkpoint becomes safetensors, complete and known, or is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from fseft.errors import FseftError, pluralise
from fseft.learn.networks import backbone
from fseft.learn.networks.state_dict_mapping import (
    LoadReport,
    match_state_dict,
    matching_checkpoints,
    output_fingerprint,
    unwrap,
)
from fseft.model_zoo.adapter_file import versions
from fseft.model_zoo.catalogue import (
    MODEL_FILE,
    WEIGHTS_FILE,
    find_weights,
    imported_folder,
    model_spec,
    read_card,
    valid_name,
)
from fseft.model_zoo.loading import output_channels
from fseft.model_zoo.weights_io import read_weights, write_weights
from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.registry import import_object, registry
from fseft.workspace import atomic_write, file_digest, write_document

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.schemas import ModelCard
    from fseft.workspace import Workspace

TOLERANCE = 1e-3
"""Relative difference of outputs that libraries and processors may make."""


@dataclass(frozen=True)
class ConvertedModel:
    """What a public file gives: a network's tensors, as stored, and all that is to be told of them."""

    card: ModelCard
    report: LoadReport
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class ImportedModel:
    """A model that can be used now, and what became of its file."""

    card: ModelCard
    report: LoadReport
    folder: Path
    replaced: str = ""  # sha256 of other weights that were here
    fresh: bool = True


def checkpoint_of(name: str) -> tuple[FoundationModelSpec, CheckpointSpec]:
    """The entry of a model whose weights are imported.

    Raises:
        FseftError: Unknown, or its weights come with its package.
    """
    spec = model_spec(name)
    if spec.checkpoint is None:
        raise FseftError(
            f"the weights of {name!r} come with its package", hint="There is nothing to import."
        )
    return spec, spec.checkpoint


def import_model(
    name: str, file: Path, store: Workspace, *, allow_pickle: bool = False, rename: str = ""
) -> ImportedModel:
    """Convert the public file of a model, once, and keep it in the user's cache.

    Args:
        name: The model.
        file: Its public file.
        store: Knows the user's cache.
        allow_pickle: Let the file run code of its own.
        rename: Keep it in the workspace instead, as a model of that name.

    Raises:
        FseftError: It is not that model's file (and whose it may be), or not whole, or the name is taken; nothing
            is kept then.
    """
    folder = _new_folder(rename, store) if rename else imported_folder(name, store)
    return keep(convert(name, file, allow_pickle=allow_pickle), folder, rename)


def convert(name: str, file: Path, *, allow_pickle: bool = False) -> ConvertedModel:
    """Read the public file of a model, and try the network that it makes.

    Raises:
        FseftError: It is not that model's file (and whose it may be), or not whole.
    """
    spec, checkpoint = checkpoint_of(name)
    content = read_weights(file, allow_pickle=allow_pickle)
    try:
        tensors = unwrap(content, checkpoint.unwrap)
        others = _look_alikes(name, spec, tensors)
        card = (
            import_object(checkpoint.card)(spec.card, file, content)
            if checkpoint.card
            else spec.card
        )
        architecture, network = _network(card, seed=0)
        chosen, report = _fitted(tensors, checkpoint, network, others)
        _refuse_broken(chosen)
    except FseftError as error:
        raise error.located(file=file) from error
    network.load_state_dict(_as_stored(chosen, network), strict=False)
    provenance = {
        "file": file.name,
        "file_sha256": file_digest(file),
        "load_report": report.model_dump(mode="json"),
        "output": measured_output(architecture, network, card),
        "versions": versions(),
    }
    told = {"provenance": provenance, "parameters": backbone.count_parameters(network)}
    return ConvertedModel(card.model_copy(update=told), report, chosen)


def keep(converted: ConvertedModel, folder: Path, name: str = "") -> ImportedModel:
    """Write a converted model, whole or not at all, under its own name or another.

    Raises:
        FseftError: The folder cannot be written, or the disk is full.
    """
    earlier = folder / WEIGHTS_FILE
    before = file_digest(earlier) if earlier.is_file() else ""
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        write_weights(temporary / WEIGHTS_FILE, converted.tensors)
        told = {
            "name": name or converted.card.name,
            "sha256": file_digest(temporary / WEIGHTS_FILE),
        }
        card = converted.card.model_copy(update=told)
        write_document(temporary / MODEL_FILE, card)
    return ImportedModel(
        card, converted.report, folder, replaced=before if before != card.sha256 else ""
    )


def imported_before(name: str, store: Workspace, file_sha256: str) -> ImportedModel | None:
    """The model as it was imported from that very file, if its weights are still whole."""
    try:
        find_weights(name, store)
        card = read_card(name, store)
    except FseftError:
        return None
    told = card.provenance
    if not file_sha256 or told.get("file_sha256") != file_sha256:
        return None
    report = LoadReport.model_validate(told["load_report"])
    return ImportedModel(card, report, imported_folder(name, store), fresh=False)


def verify_model(name: str, store: Workspace) -> ModelCard:
    """Check that an imported model is still what it was: its file, and the function that the network computes.

    Raises:
        FseftError: The file changed, or the libraries here compute something else from it.
    """
    weights = find_weights(name, store)
    card = read_card(name, store)
    architecture, network = _network(card, seed=0)
    network.load_state_dict(_as_stored(load_file(weights.path), network), strict=False)
    before, now = card.provenance.get("output"), measured_output(architecture, network, card)
    if before is None:
        raise FseftError(
            f"the model {name!r} has no output to compare with",
            hint="Its weights are those of its card; more cannot be told.",
        )
    if not _alike(before, now):
        made = ", ".join(
            f"{library} {version}"
            for library, version in card.provenance.get("versions", {}).items()
        )
        raise FseftError(
            f"the model {name!r} computes something else than when it was imported (mean {now['mean']:.4g}, then "
            f"{before['mean']:.4g})",
            hint=f"Go back to {made}, or import it again.",
        )
    return card


def _new_folder(name: str, store: Workspace) -> Path:
    if valid_name(name, "--as") in store.models():
        raise FseftError(
            f"there is a model {name!r} already",
            file=store.model(name),
            hint="Choose another name.",
        )
    if name in registry().names("model"):
        raise FseftError(
            f"--as {name}: is the name of another model", hint="Choose a name of your own."
        )
    return store.model(name)


def _look_alikes(name: str, spec: FoundationModelSpec, tensors: dict[str, Tensor]) -> list[str]:
    """The other models whose file has the same names: a file is known by its content.

    Raises:
        FseftError: It is not this model's.
    """
    specs = {known: offer.spec for known, offer in registry().registrations("model").items()}
    files = {
        known: s.checkpoint
        for known, s in specs.items()
        if isinstance(s, FoundationModelSpec) and s.checkpoint
    }
    alike = matching_checkpoints(tensors, files)
    if not any(specs[known] is spec for known in alike):
        whose = (
            f"It looks like that of {' or '.join(alike)}."
            if alike
            else f"Give the public file; see `fseft models show {name}`."
        )
        raise FseftError(
            f"is no file of {name!r} ({pluralise(len(tensors), 'tensor')}, first {min(tensors)})",
            hint=whose,
        )
    return [known for known in alike if specs[known] is not spec]


def _fitted(
    tensors: dict[str, Tensor], checkpoint: CheckpointSpec, network: nn.Module, others: list[str]
) -> tuple[dict[str, Tensor], LoadReport]:
    """The network's tensors of those of the file.

    Raises:
        FseftError: They do not fit, and whose names they have as well.
    """
    try:
        return match_state_dict(tensors, checkpoint, network.state_dict(keep_vars=True))
    except FseftError as error:
        whose = f" It may be that of {' or '.join(others)}." if others else ""
        raise FseftError(error.cause, hint=error.hint + whose) from error


def _refuse_broken(tensors: dict[str, Tensor]) -> None:
    """Raises: FseftError: there are no numbers in some, from which a network computes none either."""
    broken = [
        name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()
    ]
    if broken:
        raise FseftError(
            f"{pluralise(len(broken), 'tensor')} with NaN or infinity in it (first {broken[0]})",
            hint="Get it again; if it is the same then, its training had failed.",
        )


def _network(card: ModelCard, seed: int) -> tuple[Architecture, nn.Module]:
    architecture = backbone.get_architecture(card.architecture)
    return architecture, backbone.build_network(
        architecture,
        in_channels=card.contract.channels,
        out_channels=output_channels(card),
        hparams=card.hparams,
        seed=seed,
    )


def _as_stored(tensors: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    return {name: tensor.to(types[name]) for name, tensor in tensors.items()}


@torch.no_grad()
def measured_output(
    architecture: Architecture, network: nn.Module, card: ModelCard
) -> dict[str, Any]:
    """What the network computes from a fixed input, to be known by."""
    shape = (1, card.contract.channels, *architecture.minimum_patch)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    network.eval()  # features, where the head is random
    return output_fingerprint(
        network(x) if card.scope == "network" else architecture.features(network, x)
    )


def _alike(before: dict[str, Any], now: dict[str, Any]) -> bool:
    scale = max(abs(before["std"]), 1e-12)
    pairs: Iterable[tuple[float, float]] = zip(
        [before["mean"], before["std"], *before["values"]],
        [now["mean"], now["std"], *now["values"]],
        strict=True,
    )
    return all(math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE * scale) for a, b in pairs)
