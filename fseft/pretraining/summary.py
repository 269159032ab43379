"""Summary of a pre-training that is logged before it starts, and its warnings."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fseft.errors import pluralise
from fseft.pretraining.configure import format_setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fseft.pretraining.configure import PretrainRequest
    from fseft.pretraining.data_split import TrainingDatasets
    from fseft.schemas import Contract, ModelCard

_OWN_SPACING = "that of each dataset"


def pretraining_summary(
    datasets: TrainingDatasets,
    request: PretrainRequest,
    architecture: str,
    num_parameters: int,
    num_ranks: int,
) -> list[str]:
    """Describes data, preprocessing, network and schedule.

    Args:
        datasets: The datasets, split into training and validation.
        request: Options of the pre-training.
        architecture: Name of the network.
        num_parameters: Parameters of the network.
        num_ranks: Processes that train together.

    Returns:
        One line per dataset, and one each for structures, preprocessing and training.
    """
    scales = [
        f"{modality.upper()} {intensity.describe()}"
        for modality, intensity in datasets.contract.intensity.items()
    ]
    spacing = f"{format_setting(request.spacing_mm)} mm" if request.spacing_mm else _OWN_SPACING
    network = f"{architecture}, {num_parameters:,} parameters, on {request.device}"
    return [
        *_dataset_lines(datasets),
        _structure_line(datasets),
        f"intensities: {', '.join(scales)}; spacing: {spacing}",
        f"{network}: {_schedule(request, num_ranks)}",
    ]


def _dataset_lines(datasets: TrainingDatasets) -> Iterator[str]:
    held_out = {source.name: len(source.cases) for source in datasets.held_out}
    for source in datasets.training:
        training = pluralise(len(source.cases), "case")
        yield f"{source.name}: {training} for training, {held_out.get(source.name, 0)} held out"


def _structure_line(datasets: TrainingDatasets) -> str:
    counts = Counter(
        index for source in datasets.training for case in source.cases for index in case.drawn
    )
    names = enumerate(datasets.classes, start=1)
    structures = ", ".join(f"{name} {counts[index]}" for index, name in names)
    count = pluralise(len(datasets.classes), "structure")
    return f"{count}, with the number of training cases: {structures}"


def _schedule(request: PretrainRequest, num_ranks: int) -> str:
    epochs = pluralise(request.training.epochs, "epoch")
    steps = pluralise(request.steps_per_epoch, "step")
    crops = pluralise(request.training.crops_per_step or 1, "crop")
    size = "×".join(map(str, request.patch_size))
    ranks = f" on each of {num_ranks} ranks" if num_ranks > 1 else ""
    return f"{epochs} of {steps}, each of {crops} of {size} voxels{ranks}"


def contract_differences(card: ModelCard, contract: Contract) -> list[str]:
    """Describes how the preprocessing differs from that of the initial weights.

    Args:
        card: Card of the model that provides the initial weights.
        contract: Preprocessing of the new model.
    """
    initial, differences = card.contract, []
    if initial.orientation != contract.orientation:
        cause = f"axes {initial.orientation} instead of {contract.orientation}"
        differences.append(f"{cause} (cannot be changed)")
    if initial.spacing_mm and initial.spacing_mm != contract.spacing_mm:
        spacing = format_setting(initial.spacing_mm)
        current = format_setting(contract.spacing_mm) if contract.spacing_mm else _OWN_SPACING
        differences.append(f"spacing {spacing} mm instead of {current}")
    for modality in initial.intensity.keys() & contract.intensity.keys():
        expected, actual = initial.intensity[modality], contract.intensity[modality]
        if expected != actual:
            scales = f"{expected.describe()} instead of {actual.describe()}"
            differences.append(f"{modality.upper()} {scales}")
    return differences


def classes_without_validation(datasets: TrainingDatasets) -> list[str]:
    """Structures that no held-out case contains, so that no Dice is reported for them."""
    evaluated = {index for source in datasets.held_out for index in source.cases_with}
    names = enumerate(datasets.classes, start=1)
    return [name for index, name in names if index not in evaluated]


def summary_warnings(
    request: PretrainRequest, datasets: TrainingDatasets, card: ModelCard | None
) -> Iterator[str]:
    """Warnings about the initial weights and the held-out cases.

    Args:
        request: Options of the pre-training.
        datasets: The datasets, split into training and validation.
        card: Card of the model that provides the initial weights, if any.
    """
    if card:
        yield from _initialisation_warnings(request, datasets.contract, card)
    fraction = f"a validation fraction of {request.validation_fraction:g}"
    missing = classes_without_validation(datasets)
    if request.validation_fraction and not datasets.held_out:
        yield f"{fraction} leaves no validation case: no Dice is reported; use a larger fraction"
    elif request.validation_fraction and missing:
        structures = ", ".join(missing)
        yield f"{fraction} leaves no validation case with {structures}: no Dice is reported for it"


def _initialisation_warnings(
    request: PretrainRequest, contract: Contract, card: ModelCard
) -> Iterator[str]:
    differences = contract_differences(card, contract)
    if differences:
        yield f"the weights of {card.name} expect {'; '.join(differences)}"
    if card.licence and request.licence not in ("", card.licence):
        yield (
            f"the weights of {card.name} are under {card.licence}: check that it permits the "
            f"licence {request.licence}"
        )
