"""Defaults for a dataset: the recommended model, and the number of training cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import match_classes
from fseft.errors import FseftError, pluralise
from fseft.model_zoo.catalogue import SCRATCH, find_model, model_names
from fseft.planning.training_step import find_resources
from fseft.schemas import Decision, PlanOptions
from fseft.volume.intensity import modality_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.schemas import Fingerprint
    from fseft.workspace import Workspace

EMBEDDED = "phantom-tiny"
"""The model whose weights are part of the package. It was trained on synthetic scans."""
CPU_PARAMETERS = 100_000_000
"""Size from which a model is too slow to be recommended on a CPU."""


def recommend_model(
    fingerprint: Fingerprint,
    workspace: Workspace,
    structures: Collection[str] = (),
    device: str = "auto",
) -> tuple[FoundationModel, Decision]:
    """Returns the installed model that suits a dataset best, and why.

    A model that was trained on scans of patients comes before the embedded one, then one that takes
    the channels as they are, then the one that knows most of the structures, then the one with most
    of its network in the weights, then the smallest.

    Args:
        fingerprint: Measurements of the dataset.
        workspace: Where models of the user are stored.
        structures: The structures to segment; empty for all.
        device: "auto", "cpu" or "cuda".

    Raises:
        FseftError: No installed model takes images of these channels and this modality.
    """
    names = [name for name in fingerprint.labels if not structures or name in structures]
    limit = _parameter_limit(device)
    candidates = [
        model
        for model in _installed_models(workspace)
        if _fits(model, fingerprint) and _parameters(model) <= limit
    ]
    if not candidates:
        channels = pluralise(len(fingerprint.channels), "channel")
        raise FseftError(
            f"no installed model takes {modality_name(fingerprint.modality)} images of {channels}",
            hint="Use the model none with the method scratch, or install a model that "
            "`fseft models` lists.",
        )

    def rank(model: FoundationModel) -> tuple[bool, bool, int, int, int, str]:
        scope = ("network", "body", "encoder").index(model.card.scope)
        known = len(_known(model, names, fingerprint))
        is_synthetic, repeats = model.name == EMBEDDED, _repeats_channels(model, fingerprint)
        return is_synthetic, repeats, -known, scope, _parameters(model), model.name

    best = min(candidates, key=rank)
    reason = _reason(best, candidates, names, fingerprint)
    return best, Decision(name="model", value=best.name, reason=reason)


def recommend_k(fingerprint: Fingerprint, cases: Collection[str] = ()) -> tuple[int, Decision]:
    """Returns the number of training cases if the user sets none: all that are labelled.

    Args:
        fingerprint: Measurements of the dataset.
        cases: Cases to draw the training cases from; empty for all.
    """
    labelled = [case.name for case in fingerprint.cases if case.volumes_mm3]
    selected = [name for name in labelled if not cases or name in cases]
    count = len(selected)
    reason = "all labelled cases" + (" of the selection" if cases else "")
    decision = Decision(name="k", value=str(count), reason=reason)
    return count, decision


def _installed_models(workspace: Workspace) -> list[FoundationModel]:
    """Returns the models with weights; a damaged card does not hinder the others."""
    models = []
    for name in model_names(workspace):
        try:
            model = find_model(name, workspace)
        except FseftError:
            continue
        if name != SCRATCH and model.has_weights:
            models.append(model)
    return models


def _parameter_limit(device: str) -> int:
    is_cpu = find_resources(PlanOptions(device=device)).device == "cpu"
    return CPU_PARAMETERS if is_cpu else 10**12


def _parameters(model: FoundationModel) -> int:
    """Returns the number of parameters; where the card lacks it, as many as fit the file."""
    path = model.weights_path
    return model.card.parameters or (path.stat().st_size // 4 if path else 0)


def _fits(model: FoundationModel, fingerprint: Fingerprint) -> bool:
    """Returns whether a model takes the channels and the modality; an unknown one fits all.

    A model of one channel takes any number of them.
    """
    contract = model.card.contract
    if contract.channels not in (1, len(fingerprint.channels)) or contract.assumed_orientation:
        return False
    modality = fingerprint.modality
    return modality == "other" or not contract.intensity or modality in contract.intensity


def _repeats_channels(model: FoundationModel, fingerprint: Fingerprint) -> bool:
    return model.card.contract.channels != len(fingerprint.channels)


def _known(model: FoundationModel, names: list[str], fingerprint: Fingerprint) -> dict[str, str]:
    return match_classes(names, model.card.classes, {}, fingerprint.meanings)


def _reason(
    best: FoundationModel,
    candidates: list[FoundationModel],
    names: list[str],
    fingerprint: Fingerprint,
) -> str:
    """Describes what the model knows, and what it was chosen from."""
    modality = modality_name(fingerprint.modality)
    kind = "any" if fingerprint.modality == "other" else modality
    scope = f"the best of {len(candidates)} installed models" if candidates[1:] else "the only one"
    scope += f" installed for {kind} images"
    known = len(_known(best, names, fingerprint))
    classes = f"knows {known} of {pluralise(len(names), 'structure')}"
    if best.name != EMBEDDED:
        return f"{scope}, {classes}"
    return f"{scope}, {classes}; trained on synthetic scans, others: `fseft models`"
