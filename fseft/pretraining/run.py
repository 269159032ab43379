"""`fseft pretrain`: trains a foundation model on datasets that are partially labelled."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from fseft.experiment.callbacks import Callbacks
from fseft.experiment.checkpoints import CheckpointFolder
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.networks import backbone
from fseft.learn.networks.activation_checkpointing import (
    checkpoint_activations,
    checkpointable_blocks,
)
from fseft.learn.training.distributed import ALONE
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.learn.training_loop import autocast, make_training_state
from fseft.pretraining.configure import PretrainRequest, check_request, network_hparams
from fseft.pretraining.datasets import prepare_training_datasets
from fseft.pretraining.export import collect_tensors, make_model_card, register_model
from fseft.pretraining.initialisation import build_initialised_network, resolve_initialisation
from fseft.pretraining.preflight import check_memory
from fseft.pretraining.resume import CROPS, PreviousRun
from fseft.pretraining.summary import pretraining_summary, summary_warnings
from fseft.pretraining.training import PretrainingRun, ResolvedPretraining
from fseft.temporaries import remove_leftovers
from fseft.workspace import exclusive_lock

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture
    from fseft.learn.training.distributed import DistributedContext
    from fseft.pretraining.initialisation import Initialisation
    from fseft.schemas import ModelCard
    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


def pretrain(
    request: PretrainRequest,
    workspace: Workspace,
    callbacks: Callbacks | None = None,
    world: DistributedContext = ALONE,
) -> ModelCard:
    """Trains one network on all datasets; a structure counts only in cases that annotate it.

    Under torchrun all ranks call this function; rank 0 prepares the data, and saves and registers
    the model. An interrupted run resumes from its last checkpoint, and a finished one is returned.

    Args:
        request: Options of the pre-training.
        workspace: Workspace of the new model, `models/<name>/`.
        callbacks: Observer of the progress over cases, steps, epochs and validation.
        world: The ranks that train together.

    Returns:
        Card of the new model.

    Raises:
        FseftError: The input is invalid, or the loss is not finite; the last checkpoint is kept.
    """
    callbacks = callbacks or Callbacks()
    with ExitStack() as locks:
        resolved = world.run_on_rank_zero(
            lambda: _resolve(request, workspace, world, callbacks, locks)
        )
        if resolved.finished is not None:
            return resolved.finished
        return _train(resolved, workspace, world, callbacks)


def _resolve(
    request: PretrainRequest,
    workspace: Workspace,
    world: DistributedContext,
    callbacks: Callbacks,
    locks: ExitStack,
) -> ResolvedPretraining:
    """Decides what is trained; locks the folder of the model as long as `locks` is open."""
    initialisation = _resolve_network(request)
    settings = {
        **initialisation.settings(),
        **request.settings(),
        CROPS: str(world.size * (request.training.crops_per_step or 1)),
        "licence": request.licence,
        "fp16": str(request.fp16),
    }
    folder = workspace.model(request.name)
    locks.enter_context(exclusive_lock(folder))
    remove_leftovers(folder.parent)
    previous = PreviousRun.read(request.name, CheckpointFolder(folder), workspace)
    if not request.overwrite:
        previous.check_compatible(settings, resume=request.resume)
    datasets = prepare_training_datasets(request, workspace, callbacks, locks)
    resolved = ResolvedPretraining(request, initialisation, datasets, settings)
    check_memory(datasets, request, initialisation.architecture, initialisation.hparams)
    if request.overwrite:
        return resolved
    previous.check_compatible(resolved.identity, resume=request.resume)
    if previous.can_resume(resolved.identity, resume=request.resume):
        return replace(resolved, resumes=True)
    if previous.is_finished(resolved.identity):
        logger.info("the model %r was trained with the same settings before", request.name)
        return replace(resolved, finished=previous.card)
    return resolved


def _resolve_network(request: PretrainRequest) -> Initialisation:
    initialisation = resolve_initialisation(
        request.init,
        request.architecture,
        request.hparams,
        allow_pickle=request.allow_pickle,
    )
    architecture = backbone.get_architecture(initialisation.architecture)
    hparams = {**initialisation.hparams, **network_hparams(request.hparams, architecture)}
    check_request(request, architecture, hparams)
    initialisation = replace(initialisation, hparams=hparams)
    # Built once for the errors that this may raise: hours of preprocessing follow.
    build_initialised_network(initialisation, ("any",), request.seed)
    return initialisation


def _train(
    resolved: ResolvedPretraining,
    workspace: Workspace,
    world: DistributedContext,
    callbacks: Callbacks,
) -> ModelCard:
    request = resolved.request
    architecture, network, report = build_initialised_network(
        resolved.initialisation, resolved.datasets.classes, request.seed
    )
    if world.rank == 0:
        for line in report.describe() if report else ():
            logger.info("%s", line)
        _log_summary(resolved, network, world)
    network.train()
    forward = _wrap_network(architecture, network, request, world)
    adapted = AdaptedNetwork(network, learning_rate=1e-3, train_mode=True)
    training = make_training_state(adapted, request.training)
    folder = workspace.model(request.name)
    checkpoints = CheckpointFolder(folder, request.keep)
    run = PretrainingRun(resolved, world, training, forward, checkpoints, callbacks)
    run.resume()
    remedy = "Use a smaller patch size, fewer crops per step, or activation checkpointing."
    with report_out_of_memory("a training step", remedy):
        run.train()
    tensors = collect_tensors(network, fp16=request.fp16)
    card = make_model_card(resolved, report, training)
    return world.run_on_rank_zero(lambda: register_model(card, tensors, architecture, folder))


def _log_summary(
    resolved: ResolvedPretraining, network: nn.Module, world: DistributedContext
) -> None:
    """Logs what is about to be trained, and warns of problems."""
    request, datasets = resolved.request, resolved.datasets
    name = resolved.initialisation.architecture
    num_parameters = backbone.count_parameters(network)
    for line in pretraining_summary(datasets, request, name, num_parameters, world.size):
        logger.info("%s", line)
    for warning in summary_warnings(request, datasets, resolved.initialisation.card):
        logger.warning("%s", warning)


def _wrap_network(
    architecture: Architecture,
    network: nn.Module,
    request: PretrainRequest,
    world: DistributedContext,
) -> Callable[[Tensor], Tensor]:
    """Network as called for training: on its device, distributed, and compiled if requested."""
    blocks = checkpointable_blocks(architecture, network)
    if request.checkpoint_activations:
        checkpoint_activations(blocks)
    forward = world.wrap_model(network, shard=blocks if request.shard else None)
    return _compile(forward, request) if request.compile else forward


def _compile(forward: nn.Module, request: PretrainRequest) -> nn.Module:
    """Compiles a module if a forward pass shows that compilation works on this machine."""
    compiled: Any = torch.compile(forward)
    try:
        with torch.no_grad(), autocast(request.device, request.training.precision):
            compiled(torch.zeros(1, 1, *request.patch_size, device=request.device))
    except Exception as error:  # compilers raise any type
        name = type(error).__name__
        logger.warning("torch.compile does not work on this machine (%s): not used", name)
        return forward
    return compiled  # type: ignore[no-any-return]
