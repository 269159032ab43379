"""The record of an import in a card, and the output of its network for a fixed input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel

from fseft.documents import validate
from fseft.learn.networks import backbone
from fseft.learn.networks.state_dict_mapping import LoadReport, output_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from fseft.learn.networks.roles import Architecture
    from fseft.schemas import ModelCard

TOLERANCE = 1e-3
"""Relative difference of outputs between libraries and processors."""


class _Output(BaseModel):
    """A result of `measured_output`."""

    mean: float
    std: float
    values: list[float]


class ImportRecord(BaseModel):
    """The part of the provenance of a card that an import stores.

    Attributes:
        load_report: How the tensors of the file map to the network.
        output: Fingerprint of the output, from `measured_output`.
        versions: Version of each package at the import.
    """

    load_report: LoadReport | None = None
    output: _Output | None = None
    versions: dict[str, str] = {}


def import_record(card: ModelCard) -> ImportRecord:
    """Returns what an import stored in a card.

    Raises:
        FseftError: It is not valid.
    """
    name, hint = f"provenance of {card.name!r}", "Import the model again."
    record: ImportRecord = validate(card.provenance, ImportRecord, name=name, hint=hint)
    return record


@torch.no_grad()
def measured_output(
    architecture: Architecture, network: nn.Module, card: ModelCard
) -> dict[str, Any]:
    """Computes a fingerprint of the output for a fixed random input.

    Args:
        architecture: Architecture of the network.
        network: The network; evaluated at the smallest patch.
        card: Card of the model. Features are used instead if its weights include no head.

    Returns:
        JSON values: mean, standard deviation and some values of the output.
    """
    limits = backbone.patch_limits(architecture, card.hparams)
    shape = (1, card.contract.channels, *limits.nearest(architecture.minimum_patch))
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    network.eval()
    if card.scope == "network":
        return output_fingerprint(network(image))
    return output_fingerprint(architecture.features(network, image))


def outputs_agree(expected: Mapping[str, Any], output: Mapping[str, Any]) -> bool:
    """Returns whether two fingerprints of outputs are equal up to `TOLERANCE`.

    Args:
        expected: The stored fingerprint, from `measured_output`.
        output: The fingerprint to compare with it.
    """
    if len(expected["values"]) != len(output["values"]):
        return False
    scale = max(abs(expected["std"]), 1e-12)
    pairs: Iterable[tuple[float, float]] = zip(
        [expected["mean"], expected["std"], *expected["values"]],
        [output["mean"], output["std"], *output["values"]],
        strict=True,
    )
    return all(math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE * scale) for a, b in pairs)
