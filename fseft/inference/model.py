"""A foundation model without an adapter, as one that segments its own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fseft.errors import FseftError
from fseft.experiment.devices import select_device
from fseft.experiment.settings import configure_method
from fseft.learn.networks.backbone import patch_limits
from fseft.model_zoo.adapter_file import OpenAdapter, versions
from fseft.planning.grid import VOXEL_BUDGETS
from fseft.planning.rules import patch_size
from fseft.registry import registry
from fseft.schemas import Manifest, Preprocessing
from fseft.volume.geometry import reoriented_view, resampled_geometry
from fseft.volume.image import read_volume
from fseft.volume.intensity import guess_modality
from fseft.workspace import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fseft.model_zoo.catalogue import FoundationModel
    from fseft.schemas import Contract, Millimetres, Modality, Triple
    from fseft.volume.geometry import Geometry
    from fseft.volume.image import Volume

METHOD = "zero-shot"


def open_model(
    model: FoundationModel, scan: Sequence[Path], *, device: str = "auto"
) -> OpenAdapter:
    """Returns a model as an adapter for its classes, with the preprocessing of its contract.

    Values of the label map are 1, 2, ... in the order of the classes. What the contract leaves
    open is decided by a scan: spacing and patch size by its grid, and by its values the modality
    of a model for several.

    Args:
        model: The foundation model.
        scan: Files of the first scan, one per channel or one with all channels.
        device: Device of the inference, which limits the patch size.

    Raises:
        FseftError: The model has no classes, its weights are missing, its orientation is unknown,
            or it was trained on another modality.
    """
    _check_classes(model)
    card, weights = model.card, model.weights
    contract = card.contract
    files = scan[0] if len(scan) == 1 else tuple(scan)
    preprocessing = _preprocessing(model, read_volume(files, channels=contract.channels), device)
    spec = registry().provenance("method", METHOD)
    manifest = Manifest(
        method=spec,
        config={},
        model=model.name,
        backbone_sha256=weights.sha256,
        architecture=card.architecture,
        hparams=card.hparams,
        decoder="frozen",
        preprocessing=preprocessing,
        channels=tuple(f"channel {number}" for number in range(contract.channels)),
        labels={name: value for value, name in enumerate(card.classes, start=1)},
        support=(),
        dataset="",
        init_seed=0,
        trained_parameters=0,
        licence=card.licence,
        versions=versions(),
    )
    key = digest(manifest.model_dump(mode="json", exclude={"versions"}), length=64)
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
        is_model=True,
    )


def _check_classes(model: FoundationModel) -> None:
    card = model.card
    if not card.classes or card.scope == "encoder":
        raise FseftError(
            f"the model {model.name!r} has no classes",
            hint="Adapt it to labelled scans: `fseft adapt DATASET --model NAME --k 5`.",
        )
    if card.contract.assumed_orientation:
        raise FseftError(
            f"the axes of the training scans of {card.name!r} are unknown, so that it could see "
            "scans turned or mirrored",
            hint="Import it again with `like`, one of its training scans, or `orientation`.",
        )


def _preprocessing(model: FoundationModel, volume: Volume, device: str) -> Preprocessing:
    """Returns the contract of a model, with what it leaves open decided by a scan."""
    contract = model.card.contract
    modality = _modality(model, float(volume.array.min()))
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


def _modality(model: FoundationModel, minimum: float) -> Modality:
    """Returns the modality of a model; of a model for several, that of the scan."""
    known = list(model.card.contract.intensity)
    if len(known) == 1:
        return known[0]
    guess = guess_modality(["image"], minimum)
    for modality in (guess, "mr" if guess == "other" else guess):
        if modality in known:
            return modality
    raise FseftError(
        f"the model {model.name!r} was trained on {' and '.join(known) or 'unknown modalities'}, "
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
