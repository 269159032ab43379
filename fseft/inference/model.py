"""A foundation model without an adapter, as one that segments its own classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError
from fseft.experiment.devices import select_device
from fseft.experiment.settings import configure_method
from fseft.learn.networks.backbone import patch_limits
from fseft.model_zoo.adapter_file import OpenAdapter, versions
from fseft.model_zoo.loading import writing_order
from fseft.planning.grid import VOXEL_BUDGETS
from fseft.planning.rules import patch_size
from fseft.registry import registry
from fseft.schemas import Manifest, Preprocessing
from fseft.volume.geometry import Geometry, reoriented_view, resampled_geometry
from fseft.volume.image import Volume
from fseft.volume.intensity import guess_modality
from fseft.workspace import digest

if TYPE_CHECKING:
    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.schemas import Contract, Millimetres, Modality, Triple

METHOD = "zero-shot"
_ANY_SCAN = Volume(
    np.broadcast_to(np.int16(0), (1, 128, 128, 128)), Geometry((128,) * 3, np.eye(4))
)


def open_model(model: FoundationModel) -> OpenAdapter:
    """Returns a model as an adapter for its classes, with the preprocessing of its contract.

    Values of the label map are 1, 2, ... in the order of the classes. `for_scan` decides what the
    contract leaves open; until then these fields are those of a scan of 1 mm.

    Args:
        model: The foundation model.

    Raises:
        FseftError: The model has no classes, its weights are missing, or its orientation is
            unknown.
    """
    _check_classes(model)
    card, weights = model.card, model.weights
    modality, *_ = card.contract.intensity
    manifest = Manifest(
        method=registry().provenance("method", METHOD),
        config={},
        model=model.name,
        backbone_sha256=weights.sha256,
        architecture=card.architecture,
        hparams=card.hparams,
        decoder="frozen",
        preprocessing=_preprocessing(model, _ANY_SCAN, modality, "cpu"),
        channels=tuple(f"channel {number}" for number in range(card.contract.channels)),
        labels={name: value for value, name in enumerate(card.classes, start=1)},
        writing_order=writing_order(card, card.classes, {name: name for name in card.classes}),
        support=(),
        dataset="",
        init_seed=0,
        trained_parameters=0,
        licence=card.licence,
        versions=versions(),
    )
    description = manifest.model_dump(mode="json", exclude={"versions", "preprocessing"})
    key = digest(description, card.contract.model_dump(mode="json"), length=64)
    method = configure_method(METHOD, {})
    return OpenAdapter(
        weights.path,
        weights.path,
        key,
        model.name,
        manifest,
        method,
        card,
        weights,
        own_model=model,
    )


def for_scan(
    adapter: OpenAdapter, volume: Volume, device: str, known: Modality | None = None
) -> OpenAdapter:
    """Returns an adapter with the preprocessing of a scan; only that of a model depends on it.

    What the contract of a model leaves open is decided by the scan: spacing and patch size by its
    grid, and the modality of a model for several by what is known of it, or by the values.

    Args:
        adapter: An adapter of a file, or a model.
        volume: The scan.
        device: Device of the inference, which limits the patch size.
        known: Modality of the scan; None to guess it from the values.

    Raises:
        FseftError: The model was trained on another modality.
    """
    model = adapter.own_model
    if model is None:
        return adapter
    preprocessing = _preprocessing(model, volume, _modality(model, volume, known), device)
    manifest = adapter.manifest.model_copy(update={"preprocessing": preprocessing})
    return replace(adapter, manifest=manifest)


def _check_classes(model: FoundationModel) -> None:
    card = model.card
    if not card.classes or card.scope == "encoder":
        raise FseftError(
            f"the model {model.name!r} has no classes",
            hint="Adapt it to labelled scans: `fseft adapt DATASET --model NAME --k 5`.",
        )
    if not card.contract.intensity:
        raise FseftError(
            f"the intensities that the model {model.name!r} expects are unknown",
            hint="Adapt it to labelled scans: `fseft adapt DATASET --model NAME --k 5`.",
        )
    if card.contract.assumed_orientation:
        raise FseftError(
            f"the axes of the training scans of {card.name!r} are unknown, so that it could see "
            "scans turned or mirrored",
            hint="Import it again with `like`, one of its training scans, or `orientation`.",
        )


def _preprocessing(
    model: FoundationModel, volume: Volume, modality: Modality, device: str
) -> Preprocessing:
    """Returns the contract of a model, with what it leaves open decided by the grid of a scan."""
    contract = model.card.contract
    _, geometry = reoriented_view(volume.array, volume.geometry, contract.orientation)
    spacing_mm = contract.spacing_mm or _spacing(contract, geometry)
    shape = resampled_geometry(geometry, spacing_mm).shape
    return Preprocessing(
        orientation=contract.orientation,
        spacing_mm=spacing_mm,
        modality=modality,
        intensity=(contract.intensity[modality],) * contract.channels,
        patch_size=contract.patch_size or _patch(model, spacing_mm, shape, device),
        **contract.conventions,
    )


def _modality(model: FoundationModel, volume: Volume, stated: Modality | None) -> Modality:
    """Returns the modality of a model; of a model for several, that of the scan."""
    known = list(model.card.contract.intensity)
    if len(known) == 1:
        return known[0]
    guess = stated or guess_modality(["image"], float(volume.array.min()))
    for modality in (guess, "mr" if guess == "other" else guess):
        if modality in known:
            return modality
    raise FseftError(
        f"the model {model.name!r} was trained on {' and '.join(known)}, "
        f"and the scan seems to be {guess}",
        hint="Use a model for this modality, or adapt this one.",
    )


def _spacing(contract: Contract, geometry: Geometry) -> Millimetres:
    """Returns the spacing of a scan, within the range that the model was trained on."""
    low, high = contract.spacing_range_mm or (0.0, np.inf)
    i, j, k = np.clip(geometry.spacing_mm, low, high).tolist()
    return i, j, k


def _patch(model: FoundationModel, spacing_mm: Millimetres, shape: Triple, device: str) -> Triple:
    limits = patch_limits(model.architecture(), model.card.hparams)
    budget = VOXEL_BUDGETS["cuda" if select_device(device) == "cuda" else "cpu"]
    return patch_size(spacing_mm, shape, limits.divisor, limits.minimum, budget)
