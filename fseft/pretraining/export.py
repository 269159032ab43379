"""A network that was pre-trained becomes a foundation model of the workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fseft.learn.networks import backbone
from fseft.learn.training.distributed import gather_full_tensor
from fseft.model_zoo.adapter_file import versions
from fseft.model_zoo.catalogue import MODEL_FILE, WEIGHTS_FILE
from fseft.model_zoo.conversion import measured_output
from fseft.pretraining.resume import DATA, SETTINGS
from fseft.schemas import ModelCard
from fseft.workspace import atomic_write, file_digest, write_document

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.learn.networks.state_dict_mapping import LoadReport
    from fseft.learn.training_loop import Training
    from fseft.pretraining.configure import PretrainRequest
    from fseft.pretraining.datasets import TrainingDatasets
    from fseft.pretraining.initialisation import Initialisation


def make_card(
    request: PretrainRequest,
    assembly: TrainingDatasets,
    start: Initialisation,
    report: LoadReport | None,
    training: Training,
    settings: dict[str, str],
) -> ModelCard:
    """What the new model is, knows and expects, and where it comes from."""
    names = [source.name for source in assembly.training]
    began = start.card
    loaded = {
        "from": began.name if began else start.path and start.path.name,
        "sha256": start.sha256,
    }
    return ModelCard(
        name=request.name,
        summary=f"pre-trained on {len(names)} partially labelled datasets",
        architecture=start.architecture,
        hparams=start.hparams,
        parameters=backbone.count_parameters(training.adapted.network),
        classes=assembly.classes,
        activation="sigmoid",
        contract=assembly.contract,
        licence=request.licence or (began.licence if began else ""),
        shareable=False if began and began.shareable is False else None,
        datasets=tuple(dict.fromkeys([*(began.datasets if began else ()), *names])),
        provenance={
            "datasets": _datasets(assembly),
            DATA: assembly.key,
            SETTINGS: settings,
            "epochs": len(training.losses),
            "steps": training.step,
            "minutes": round(training.seconds / 60, 1),
            "versions": versions(),
            **({"init": loaded, "load_report": report.model_dump(mode="json")} if report else {}),
        },
    )


def _datasets(assembly: TrainingDatasets) -> dict[str, Any]:
    held_out = {source.name: len(source.cases) for source in assembly.held_out}
    return {
        source.name: {
            "cases": len(source.cases),
            "held_out": held_out.get(source.name, 0),
            "annotated": [
                assembly.classes[i - 1]
                for i in sorted({i for c in source.cases for i in c.annotated})
            ],
        }
        for source in assembly.training
    }


def stored_tensors(network: nn.Module, *, half: bool) -> dict[str, Tensor]:
    """What the file of weights will hold; all ranks must ask."""
    state = {
        name: gather_full_tensor(tensor.detach()).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    if half:  # but not indices and counts, which half precision does not hold beyond 2048
        state = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
    return state


def register(
    card: ModelCard, tensors: dict[str, Tensor], architecture: Architecture, folder: Path
) -> ModelCard:
    """Write weights and card. The card goes first and comes last, so that a model is there whole or not at all."""
    from safetensors.torch import save

    network = backbone.build_network(
        architecture, in_channels=1, out_channels=len(card.classes), hparams=card.hparams, seed=0
    )
    backbone.load_weights(network, tensors, source=card.name)
    path = folder / WEIGHTS_FILE
    (folder / MODEL_FILE).unlink(missing_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors))
    output = measured_output(architecture, network, card)
    done = {"sha256": file_digest(path), "provenance": {**card.provenance, "output": output}}
    card = card.model_copy(update=done)
    write_document(folder / MODEL_FILE, card)
    return card
