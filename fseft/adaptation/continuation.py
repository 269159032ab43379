"""Continues from an adapter with more training cases or structures, instead of from the model."""

from __future__ import annotations

import logging
from functools import partial
from math import isclose
from typing import TYPE_CHECKING, Any

from fseft.anatomy.vocabulary import match_classes
from fseft.errors import FseftError
from fseft.experiment.settings import configure_method, default_decoder_mode
from fseft.learn.adapters.adapted_network import head_names
from fseft.model_zoo.adapter_file import open_adapter, read_tensors
from fseft.model_zoo.catalogue import find_model
from fseft.planning.rules import show_sides
from fseft.registry import registry
from fseft.schemas import Decision, Origin
from fseft.volume.intensity import modality_name
from fseft.workspace import file_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.adaptation.request import AdaptConfig, AdaptRequest
    from fseft.experiment.settings import ConfiguredMethod
    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.networks.roles import Architecture
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.schemas import Fingerprint, Manifest, PartMode, Plan
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)

_NEW_RUN = "Leave it out, or adapt without an adapter to start from."


def open_origin(path: Path, workspace: Workspace, model: FoundationModel | None) -> OpenAdapter:
    """Opens the adapter that a training is to start from.

    Args:
        path: The adapter file, or the folder of its run.
        workspace: Where models of the user are stored.
        model: The model that the user chose; None for that of the adapter.

    Raises:
        FseftError: As for `open_adapter`; the adapter is for another model than the chosen one, or
            its method trains nothing.
    """

    def model_of(name: str) -> FoundationModel:
        if model is None:
            return find_model(name, workspace)
        if model.name != name:
            cause = f"the adapter is for the model {name!r}, and the model is {model.name!r}"
            raise FseftError(cause, file=path, hint=_NEW_RUN)
        return model

    origin = open_adapter(path, model_of)
    if not origin.method.spec.trains:
        cause = f"the adapter was not trained: its method is {origin.method.spec.name!r}"
        raise FseftError(cause, file=path, hint="Adapt without an adapter to start from.")
    return origin


def continued_method(
    origin: OpenAdapter,
    name: str,
    settings: Mapping[str, Any],
    *,
    decoder: PartMode | None,
    bottleneck: PartMode | None,
) -> ConfiguredMethod:
    """Configures the method of an adapter as it was; the settings of the training can be new.

    Args:
        origin: The adapter.
        name: Name of the method.
        settings: Settings of method and training.
        decoder: Mode of the decoder that the user chose; None for that of the adapter.
        bottleneck: The same of the bottleneck.

    Raises:
        FseftError: Another method, or another setting of the method: the weights would not fit.
    """
    manifest, former = origin.manifest, origin.method
    if registry().method(name) is not former.spec:
        cause = f"the adapter has the method {former.spec.name!r}, and the method is {name!r}"
        raise FseftError(cause, file=origin.path, hint=_NEW_RUN)
    defaults = {"decoder": default_decoder_mode(former.spec), "bottleneck": "frozen"}
    modes = {part: mode for part, mode in manifest.part_modes.items() if mode != defaults[part]}
    mirror = {"mirror": True} if manifest.mirror else {}
    as_before = former.config.model_dump(mode="json")
    method = configure_method(name, {**as_before, **mirror, **settings}, **modes)
    chosen = method.config.model_dump(mode="json")
    requested = {"decoder": decoder, "bottleneck": bottleneck}
    chosen |= {part: mode for part, mode in requested.items() if mode is not None}
    _check_same(origin, {**as_before, **manifest.part_modes}, chosen)
    return method


def _check_same(
    origin: OpenAdapter, former: Mapping[str, Any], requested: Mapping[str, Any]
) -> None:
    """Refuses values that differ from those of the adapter."""
    for key, value in requested.items():
        if value != former[key]:
            cause = f"the adapter was trained with {key} {former[key]} (requested {value})"
            raise FseftError(cause, file=origin.path, hint=_NEW_RUN)


def check_origin(request: AdaptRequest, fingerprint: Fingerprint) -> None:
    """Refuses data or options for which the weights of the adapter were not trained.

    Raises:
        FseftError: Another modality, other channels, another spacing, an alternative plan, or the
            folder of the adapter as the output.
    """
    origin = request.origin
    if origin is None:
        return
    if request.output and request.output.absolute() == origin.file.parent:
        cause = "contains the adapter to start from, which the run would replace"
        raise FseftError(cause, file=request.output, hint="Use another `output`.")
    for cause in (*_other_scans(origin.manifest, fingerprint), *_other_plan(request, origin)):
        raise FseftError(cause, file=origin.path, hint=_NEW_RUN)


def _other_scans(manifest: Manifest, fingerprint: Fingerprint) -> Iterator[str]:
    """Yields how scans differ from those of the adapter."""
    former, new = manifest.preprocessing.modality, fingerprint.modality
    if former != new:
        yield (
            f"the adapter was trained on {modality_name(former)}, and the scans are "
            f"{modality_name(new)}"
        )
    channels = manifest.channels, fingerprint.channels
    if channels[0] != channels[1] and max(map(len, channels)) > 1:
        names, new_names = map(", ".join, channels)
        yield f"the adapter has the channels {names}, and the scans have {new_names}"


def _other_plan(request: AdaptRequest, origin: OpenAdapter) -> Iterator[str]:
    """Yields what is requested of the plan that contradicts the adapter."""
    if request.plan_name:
        yield f"the adapter decides spacing and intensities, not {request.plan_name!r}"
    mode, chosen = origin.manifest.preprocessing.channel_mode or "all", request.channels
    if chosen and chosen != mode and len(origin.manifest.channels) > 1:
        yield f"the adapter was trained with `channels` {mode} (requested {chosen})"
    former, spacing = origin.manifest.preprocessing.spacing_mm, request.spacing_mm
    if spacing and not all(map(partial(isclose, rel_tol=1e-4), spacing, former)):
        yield (
            f"the adapter was trained at {show_sides(former)} mm "
            f"(requested {show_sides(spacing)} mm)"
        )


def match_rows(
    request: AdaptRequest, structures: Sequence[str], fingerprint: Fingerprint
) -> dict[str, str]:
    """Matches structures with those of the adapter, from whose rows of the head they start.

    Warns of structures of the adapter that are not among them.

    Args:
        request: What to adapt; its mapping takes precedence over the names.
        structures: The structures to segment.
        fingerprint: Of the dataset.
    """
    if request.origin is None:
        return {}
    known = tuple(request.origin.manifest.labels)
    chosen = {name: row for name, row in request.mapping.items() if row in known or not row}
    mapping = {name: name for name in structures if name in known} | chosen
    rows = match_classes(structures, known, mapping, fingerprint.meanings)
    lost = [name for name in known if name not in rows.values()]
    if lost:
        logger.warning("structures of the adapter that are left out: %s", ", ".join(lost))
    return rows


def with_former_preprocessing(plan: Plan, origin: OpenAdapter) -> Plan:
    """Returns a plan with the preprocessing of the adapter, except for the patch of the plan."""
    former = origin.manifest.preprocessing
    preprocessing = former.model_copy(update={"patch_size": plan.preprocessing.patch_size})
    schemes = dict.fromkeys(scheme.describe() for scheme in former.intensity)
    values = {"spacing": f"{show_sides(former.spacing_mm)} mm", "intensity": "; ".join(schemes)}
    if former.channel_mode:
        values["channels"] = f"{former.channel_mode} of {', '.join(origin.manifest.channels)}"
    if preprocessing == former:
        values["patch size"] = f"{show_sides(former.patch_size)} voxels"
    reason = f"as in the adapter {origin.path}"
    decisions = [
        Decision(name=decision.name, value=values[decision.name], reason=reason)
        if decision.name in values
        else decision
        for decision in plan.decisions
    ]
    update = {"preprocessing": preprocessing, "decisions": tuple(decisions)}
    return plan.model_copy(update=update)


def describe_origin(config: AdaptConfig) -> Origin | None:
    """Describes the adapter that the training starts from; None for the model itself."""
    origin = config.request.origin
    if origin is None:
        return None
    manifest = origin.manifest
    return Origin(
        sha256=origin.sha256,
        dataset=manifest.dataset,
        k=manifest.k,
        cases=manifest.support,
        rows=config.continued,
        path=str(origin.path),
        origin=manifest.origin,
    )


def load_origin(
    adapted: AdaptedNetwork,
    architecture: Architecture,
    origin: OpenAdapter,
    rows: Sequence[str | None],
) -> None:
    """Loads the tensors of an adapter into a network with the same method, maybe another head.

    Args:
        adapted: The network; its tensors are changed in place.
        architecture: Architecture of the network.
        origin: The adapter.
        rows: Structure of the adapter whose row each structure of the network starts from; None
            keeps the row of the network.

    Raises:
        FseftError: The adapter is damaged, was replaced, or does not fit the network.
    """
    former = list(origin.manifest.labels)
    try:
        tensors = _read_unchanged(origin)
        if list(rows) != former:
            sources = [former.index(row) + 1 if row else None for row in rows]
            tensors |= _arranged_rows(adapted, architecture, tensors, [0, *sources])
        adapted.load_state_dict(tensors)
    except FseftError as error:
        raise error.located(file=origin.path) from error


def _read_unchanged(origin: OpenAdapter) -> dict[str, Tensor]:
    tensors = read_tensors(origin.file)
    if file_digest(origin.file) != origin.sha256:
        raise FseftError("the adapter was replaced while it was read", hint="Run again.")
    return tensors


def _arranged_rows(
    adapted: AdaptedNetwork,
    architecture: Architecture,
    tensors: Mapping[str, Tensor],
    sources: Sequence[int | None],
) -> dict[str, Tensor]:
    """Returns the tensors of the classifier with the rows of the adapter in another order.

    Args:
        adapted: The network.
        architecture: Architecture of the network.
        tensors: The tensors of the adapter.
        sources: Row of the adapter for each row of the network; None keeps that of the network.
    """
    own, name = adapted.state_dict(), _classifier_name(adapted.network, architecture)
    arranged = {}
    for key in (f"{name}.weight", f"{name}.bias"):
        if key in own and key in tensors:
            arranged[key] = own[key].clone()
            for row, source in enumerate(sources):
                if source is not None:
                    arranged[key][row] = tensors[key][source]
    if f"{name}.weight" not in arranged:
        cause = "the structures have changed, and its head cannot take others"
        raise FseftError(cause, hint="Use the structures of the adapter, or adapt without it.")
    return arranged


def _classifier_name(network: nn.Module, architecture: Architecture) -> str:
    """Returns the name of the layer with a row per class: the last convolution of the head."""
    from torch.nn import Conv3d

    head = head_names(architecture, network)[0]
    layers = network.get_submodule(head).named_modules(prefix=head)
    convolutions: list[str] = [name for name, layer in layers if isinstance(layer, Conv3d)]
    return convolutions[-1]
