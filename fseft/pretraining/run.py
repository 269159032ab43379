"""`fseft pretrain`: a supervised foundation model from datasets that are labelled only in part."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from fseft.errors import FseftError
from fseft.experiment.checkpoints import FACTS, CheckpointFolder
from fseft.experiment.devices import select_device
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.networks import backbone
from fseft.learn.networks.activation_checkpointing import (
    checkpoint_activations,
    checkpointable_blocks,
)
from fseft.learn.sampling.augmentation import load_augmentations
from fseft.learn.sampling.multi_dataset_sampler import (
    BatchRequest,
    draw_crop_request,
    read_batch,
    sampling_probabilities,
)
from fseft.learn.training.distributed import init_process_group
from fseft.learn.training.losses import load_loss, masked_losses, structure_masks
from fseft.learn.training.memory_estimate import report_out_of_memory
from fseft.learn.training.prefetch import BatchPrefetcher, derived_seed
from fseft.learn.training_loop import Training, autocast, make_training_state, train
from fseft.pretraining import resume
from fseft.pretraining.configure import PretrainRequest, Watcher, check, network_hparams
from fseft.pretraining.datasets import TrainingDatasets, assemble
from fseft.pretraining.export import make_card, register, stored_tensors
from fseft.pretraining.initialisation import (
    Initialisation,
    build_initialised_network,
    resolve_initialisation,
)
from fseft.pretraining.preflight import (
    check_memory,
    classes_without_validation,
    contract_differences,
    pretraining_summary,
)
from fseft.pretraining.resume import CROPS, PreviousRun
from fseft.pretraining.validation import Validation
from fseft.workspace import exclusive_lock, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from fseft.learn.sampling.multi_dataset_sampler import Batch
    from fseft.learn.training.distributed import DistributedContext
    from fseft.learn.training.progress import Epoch
    from fseft.schemas import ModelCard
    from fseft.workspace import Workspace

CURVE = "curve.jsonl"
LOSS = "dice_ce"


@dataclass(frozen=True)
class _Job:
    """Everything decided, before any training."""

    request: PretrainRequest
    start: Initialisation
    assembly: TrainingDatasets
    settings: dict[str, str]
    """What the model is made with, in words."""
    answer: ModelCard | None = None
    """The model, if this very request was answered before."""
    begun: bool = False
    """Whether the newest checkpoint is of this request."""

    @property
    def facts(self) -> dict[str, str]:
        """What a checkpoint or a finished model must have been made with to be this request's."""
        structures = ", ".join(self.assembly.classes)
        return {**self.settings, resume.DATA: self.assembly.key, resume.STRUCTURES: structures}

    def order(self, step: int, ranks: range) -> BatchRequest:
        """The crops of a step for some ranks: the n-th of all is the same, whoever draws it."""
        request = self.request
        odds = sampling_probabilities(
            [len(source.cases) for source in self.assembly.training], request.temperature
        )
        each = request.recipe.crops_per_step or 1
        picks = (
            draw_crop_request(
                self.assembly.training,
                odds,
                request.recipe.foreground_fraction,
                derived_seed(request.seed, "crops", step, n),
            )
            for n in range(ranks.start * each, ranks.stop * each)
        )
        return BatchRequest(
            tuple(picks),
            request.patch_size,
            len(self.assembly.classes),
            load_augmentations(request.recipe.augmentations),
        )


def pretrain(
    request: PretrainRequest, store: Workspace, watcher: Watcher | None = None
) -> ModelCard:
    """Train one network on all datasets, a class counting only where a case annotates it.

    Under torchrun all ranks call this; rank 0 prepares, saves and registers. A run that was killed goes on from its
    last checkpoint, and a request that was answered is not answered again.

    Returns:
        The card of the new model, which lies in the workspace under `models/<name>/`.

    Raises:
        FseftError: Bad input, or a loss that is no number; the last checkpoint stays.
    """
    watcher = watcher or Watcher()
    with init_process_group(select_device(request.device)) as world, ExitStack() as alone:
        request = replace(request, device=world.device)
        job = world.run_on_rank_zero(lambda: _decide(request, store, world, watcher, alone))
        if job.answer is not None:
            return job.answer
        architecture, network, report = build_initialised_network(
            job.start, job.assembly.classes, request.seed
        )
        if report:
            watcher.loaded(report)
        _tell(job, network, world, watcher)
        network.train()
        parts = checkpointable_blocks(architecture, network)
        if request.recompute:
            checkpoint_activations(parts)
        forward = world.wrap_model(network, shard=parts if request.shard else None)
        if request.compiled:
            forward = _compiled(forward, job, watcher)
        training = make_training_state(
            AdaptedNetwork(network, learning_rate=1e-3, train_mode=True), request.recipe
        )
        run = _Run(
            job,
            world,
            training,
            forward,
            CheckpointFolder(store.model(request.name), request.keep),
            watcher,
        )
        run.resume()
        with report_out_of_memory(
            "a step of the training", "Give a smaller --patch, fewer --crops or --checkpointing."
        ):
            run.train()
        tensors = stored_tensors(network, half=request.half)
        card = make_card(request, job.assembly, job.start, report, training, job.settings)
        card = world.run_on_rank_zero(
            lambda: register(card, tensors, architecture, store.model(request.name))
        )
        if world.rank == 0:
            run.checkpoints.clear()
        return card


def _decide(
    request: PretrainRequest,
    store: Workspace,
    world: DistributedContext,
    watcher: Watcher,
    alone: ExitStack,
) -> _Job:
    """See what there is to do, keeping other processes from it while the context lasts."""
    start = resolve_initialisation(
        request.init, request.architecture, request.hparams, store, trust=request.trust
    )
    architecture = backbone.get_architecture(start.architecture)
    check(request, architecture)
    start = replace(
        start,
        hparams={**start.hparams, **network_hparams(request.hparams, architecture)},
    )
    build_initialised_network(
        start, ("any",), request.seed
    )  # for what it refuses: hours of preprocessing may follow
    settings = {
        **start.settings(),
        **request.settings(),
        CROPS: str(world.size * (request.recipe.crops_per_step or 1)),
        "licence": request.licence,
        "half": str(request.half),
    }
    alone.enter_context(exclusive_lock(store.model(request.name)))
    before = PreviousRun.of(request.name, CheckpointFolder(store.model(request.name)), store)
    if not request.overwrite:
        before.refuse_other(settings, resume=request.resume)
    job = _Job(request, start, assemble(request, store, watcher), settings)
    check_memory(job.assembly, request, start.architecture, start.hparams)
    if request.overwrite:
        return job
    before.refuse_other(job.facts, resume=request.resume)
    if before.can_resume(job.facts, resume=request.resume):
        return replace(job, begun=True)
    if before.answers(job.facts):
        watcher.note(
            f"the model {request.name!r} was made with these very settings before: nothing is left to do"
        )
        return replace(job, answer=before.card)
    return job


def _tell(job: _Job, network: nn.Module, world: DistributedContext, watcher: Watcher) -> None:
    """What is about to begin."""
    parameters = backbone.count_parameters(network)
    for line in pretraining_summary(
        job.assembly, job.request, job.start.architecture, parameters, world.size
    ):
        watcher.note(line)
    if (card := job.start.card) and (unlike := contract_differences(card, job.assembly.contract)):
        watcher.warn(f"--init {card.name}: its weights expect {'; '.join(unlike)}")
    if card and card.licence and job.request.licence not in ("", card.licence):
        watcher.warn(
            f"--init {card.name}: is under {card.licence}; see that it allows --licence {job.request.licence}"
        )
    share, dark = (
        f"--validation-share {job.request.validation_share:g}",
        classes_without_validation(job.assembly),
    )
    if job.request.validation_share and not job.assembly.held_out:
        watcher.warn(
            f"{share} holds out no case of so few: the curve tells the loss alone; give a larger share"
        )
    elif job.request.validation_share and dark:
        watcher.warn(
            f"{share} holds out no case of {', '.join(dark)}: the curve does not tell of them"
        )


def _compiled(forward: nn.Module, job: _Job, watcher: Watcher) -> nn.Module:
    """torch.compile, where a small pass shows that it works here."""
    compiled: Any = torch.compile(forward)
    try:
        with torch.no_grad(), autocast(job.request.device, job.request.recipe.precision):
            compiled(torch.zeros(1, 1, *job.request.patch_size, device=job.request.device))
    except Exception as error:  # compilers fail in any way
        watcher.warn(f"--compile does not work here ({type(error).__name__}): going on without")
        return forward
    return compiled  # type: ignore[no-any-return]


@dataclass
class _Run:
    """A training under way, with what it needs and what it leaves."""

    job: _Job
    world: DistributedContext
    training: Training
    forward: Callable[[Tensor], Tensor]
    checkpoints: CheckpointFolder
    watcher: Watcher
    curve: list[dict[str, Any]] = field(default_factory=list)

    @property
    def crops(self) -> int:
        """Crops of a step, over all ranks."""
        return int(self.job.settings[CROPS])

    def resume(self) -> None:
        """Go on from the last checkpoint, if it is of this request."""
        state = self.world.run_on_rank_zero(
            lambda: self.checkpoints.load() if self.job.begun else None
        )
        if state is None:
            return
        made = state.pop(FACTS)
        ranks, crops = state.pop("ranks"), int(made[CROPS])
        if (ranks, crops) != (self.world.size, self.crops):
            effect = (
                "the same"
                if crops == self.crops
                else f"{self.crops} a step, not {crops}: not as without a break"
            )
            self.watcher.warn(
                f"goes on with {self.world.size} rank(s), not {ranks}; the crops are {effect}"
            )
        others = {key: self.job.facts[key] for key in resume.MAY_CHANGE_IF_ASKED}
        if told := resume.differences(others, made):
            self.watcher.warn(f"goes on with other settings{told}: not as without a break")
        self.curve = state.pop("curve")
        self.training.restore(state)
        self.watcher.note(
            f"goes on after epoch {len(self.training.losses)} of {self.job.request.recipe.epochs}"
        )

    def train(self) -> None:
        """Fit, validate and save until the end."""
        request, world = self.job.request, self.world
        mine = range(world.rank, world.rank + 1)
        like = self.job.order(0, mine)
        count = request.steps_per_epoch
        validation = Validation.of(
            self.job.assembly, world, count=count, like=like, seed=request.seed
        )
        with BatchPrefetcher(
            read_batch, lambda step: self.job.order(step, mine), processes=request.workers
        ) as ahead:
            train(
                self.training,
                lambda step: self._loss(ahead.batch(step), step),
                request.recipe,
                steps_per_epoch=request.steps_per_epoch,
                minutes=request.minutes,
                on_step=self.watcher.step,
                on_epoch=lambda epoch: self._after(epoch, validation),
                save=self._save,
                world=world,
            )

    def _loss(self, batch: Batch, step: int) -> Tensor:
        """The masked mean over the crops of all ranks is the mean of what this gives on each."""
        request, device = self.job.request, self.world.device
        labels = torch.from_numpy(batch.labels).to(device)
        annotated = torch.from_numpy(batch.annotated).to(device)
        torch.manual_seed(derived_seed(request.seed, "dropout", step, self.world.rank))
        with autocast(device, request.recipe.precision):
            logits = self.forward(torch.from_numpy(batch.images).to(device))
        reference = structure_masks(labels, annotated.shape[1])
        loss = load_loss(request.recipe.loss or LOSS)
        losses = masked_losses(logits, reference, annotated, loss)
        for value, origin in zip(losses.tolist(), batch.origins, strict=True):
            if not math.isfinite(value):
                kept = "; --resume then goes on from the last checkpoint" if self.curve else ""
                raise FseftError(
                    f"the loss is {value} at step {step} in {origin}",
                    hint=f"Mend the case or leave it out, or lower --learning-rate{kept}.",
                )
        return self.world.size * losses.sum() / self.world.sum(annotated.sum()).clamp(min=1)

    def _after(self, epoch: Epoch, validation: Validation) -> None:
        """Validate, and draw the curve further."""
        network = self.training.adapted.network.eval()
        with self.training.ema_weights():
            dice = validation.dice(self._logits)
        network.train()
        line = {"epoch": epoch.number, "loss": epoch.loss, "learning_rate": epoch.learning_rate}
        self.curve.append({**line, "seconds": round(epoch.seconds, 2), "dice": dice})
        self.watcher.epoch(epoch, dice)
        if self.world.rank == 0:
            write_text(
                self.checkpoints.folder / CURVE,
                "".join(json.dumps(one) + "\n" for one in self.curve),
            )

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.world.device, self.job.request.recipe.precision):
            return self.forward(images)

    def _save(self, state: dict[str, Any]) -> None:
        if self.world.rank == 0:
            own = {FACTS: self.job.facts, "ranks": self.world.size, "curve": self.curve}
            self.checkpoints.save({**state, **own}, len(self.training.losses))
