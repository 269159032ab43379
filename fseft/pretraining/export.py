"""Export of a pre-trained network as a foundation model of the workspace."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from fseft.experiment.checkpoints import CHECKPOINTS
from fseft.learn.networks import backbone
from fseft.learn.training.distributed import gather_full_tensor
from fseft.model_zoo.adapter_file import versions
from fseft.model_zoo.catalogue import MODEL_FILE, WEIGHTS_FILE
from fseft.model_zoo.import_record import measured_output
from fseft.pretraining.resume import DATA, SETTINGS
from fseft.schemas import ModelCard
from fseft.workspace import atomic_write, file_digest, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.learn.networks.state_dict_mapping import LoadReport
    from fseft.learn.training_loop import Training
    from fseft.pretraining.data_split import TrainingDatasets
    from fseft.pretraining.initialisation import Initialisation
    from fseft.pretraining.training import ResolvedPretraining


def make_model_card(
    resolved: ResolvedPretraining, report: LoadReport | None, training: Training
) -> ModelCard:
    """Describes the new model.

    Args:
        resolved: Request, datasets and initial weights.
        report: Report on the initial weights; None for random ones.
        training: State at the end of the training.

    Returns:
        The card without the digest of the weights, which `register_model` adds.
    """
    request, datasets = resolved.request, resolved.datasets
    initial = resolved.initialisation.card
    names = [source.name for source in datasets.training]
    provenance = {
        "datasets": _dataset_summary(datasets),
        DATA: datasets.key,
        SETTINGS: resolved.settings,
        "epochs": len(training.losses),
        "steps": training.step,
        "minutes": round(training.seconds / 60, 1),
        "versions": versions(),
        **_initialisation_provenance(resolved.initialisation, report),
    }
    return ModelCard(
        name=request.name,
        summary=f"pre-trained on {len(names)} partially labelled datasets",
        architecture=resolved.initialisation.architecture,
        hparams=resolved.initialisation.hparams,
        parameters=backbone.count_parameters(training.adapted.network),
        classes=datasets.classes,
        activation="sigmoid",
        contract=datasets.contract,
        licence=request.licence or (initial.licence if initial else ""),
        shareable=False if initial and initial.shareable is False else None,
        datasets=tuple(dict.fromkeys([*(initial.datasets if initial else ()), *names])),
        provenance=provenance,
    )


def _initialisation_provenance(
    initialisation: Initialisation, report: LoadReport | None
) -> dict[str, Any]:
    if report is None:
        return {}
    name = initialisation.card.name if initialisation.card else ""
    file = initialisation.path.name if initialisation.path else ""
    return {
        "init": {"from": name or file, "sha256": initialisation.sha256},
        "load_report": report.model_dump(mode="json"),
    }


def _dataset_summary(datasets: TrainingDatasets) -> dict[str, Any]:
    held_out = {source.name: len(source.cases) for source in datasets.held_out}
    summary = {}
    for source in datasets.training:
        annotated = sorted({index for case in source.cases for index in case.annotated})
        summary[source.name] = {
            "cases": len(source.cases),
            "held_out": held_out.get(source.name, 0),
            "annotated": [datasets.classes[index - 1] for index in annotated],
        }
    return summary


def collect_tensors(network: nn.Module, *, fp16: bool) -> dict[str, Tensor]:
    """Collects the tensors of a network on the CPU; a collective call of all ranks.

    Args:
        network: The network, possibly sharded over the ranks.
        fp16: Whether floating-point tensors are converted to half precision.
    """
    state = {
        name: gather_full_tensor(tensor.detach()).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    if not fp16:
        return state
    # Integers are kept: half precision does not represent all indices and counts beyond 2048.
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def register_model(
    card: ModelCard, tensors: dict[str, Tensor], architecture: Architecture, folder: Path
) -> ModelCard:
    """Writes weights and card to the workspace, and removes the checkpoints of the training.

    The folder is replaced in one step, so that it holds the previous or the complete new model.

    Args:
        card: Card of the model, see `make_model_card`.
        tensors: Weights, see `collect_tensors`.
        architecture: Architecture of the network.
        folder: Folder of the model.

    Returns:
        The card with the digest of the weights, and the output for a fixed input.
    """
    from safetensors.torch import save

    network = backbone.build_network(
        architecture, in_channels=1, out_channels=len(card.classes), hparams=card.hparams, seed=0
    )
    backbone.load_weights(network, tensors, source=card.name)
    output = measured_output(architecture, network, card)
    provenance = {**card.provenance, "output": output}
    with atomic_write(folder) as temporary:
        outdated = shutil.ignore_patterns(WEIGHTS_FILE, MODEL_FILE, CHECKPOINTS, ".*")
        shutil.copytree(folder, temporary, ignore=outdated)
        weights = temporary / WEIGHTS_FILE
        weights.write_bytes(save(tensors))
        card = card.model_copy(update={"sha256": file_digest(weights), "provenance": provenance})
        write_document(temporary / MODEL_FILE, card)
    return card
