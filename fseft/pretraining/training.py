"""Training of a foundation model: batches of crops, masked losses, validation and checkpoints."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from fseft.errors import FseftError, pluralise
from fseft.experiment.checkpoints import FACTS
from fseft.learn.sampling.augmentation import load_augmentations
from fseft.learn.sampling.multi_dataset_sampler import (
    BatchRequest,
    draw_crop_request,
    read_batch,
    sampling_probabilities,
)
from fseft.learn.training.losses import load_loss, masked_losses, structure_masks
from fseft.learn.training.prefetch import BatchPrefetcher, derived_seed
from fseft.learn.training_loop import autocast, train
from fseft.pretraining.resume import (
    CROPS,
    DATA,
    MAY_CHANGE_ON_REQUEST,
    STRUCTURES,
    describe_differences,
    upgrade_settings,
)
from fseft.pretraining.validation import Validation
from fseft.volume.label_values import IGNORED
from fseft.workspace import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from fseft.experiment.callbacks import Callbacks
    from fseft.experiment.checkpoints import CheckpointFolder
    from fseft.learn.sampling.augmentation import AugmentationPipeline
    from fseft.learn.sampling.multi_dataset_sampler import Batch
    from fseft.learn.training.distributed import DistributedContext
    from fseft.learn.training.losses import Loss
    from fseft.learn.training.progress import Epoch
    from fseft.learn.training_loop import Training
    from fseft.pretraining.configure import PretrainRequest
    from fseft.pretraining.data_split import TrainingDatasets
    from fseft.pretraining.initialisation import Initialisation
    from fseft.schemas import ModelCard

logger = logging.getLogger(__name__)

CURVE = "curve.jsonl"
"""Loss, learning rate and Dice of each epoch, in the folder of the model."""


_DEFAULT_LOSS = "dice_ce"


@dataclass(frozen=True)
class ResolvedPretraining:
    """Everything that is decided before the training starts.

    Attributes:
        request: Options of the pre-training, with the device of this rank.
        initialisation: Network and initial weights.
        datasets: Datasets, split into training and validation.
        settings: Setting -> value in words, as stored with the model.
        finished: The model, if an earlier run has trained it with the same settings.
        resumes: Whether training starts from the newest checkpoint.
    """

    request: PretrainRequest
    initialisation: Initialisation
    datasets: TrainingDatasets
    settings: dict[str, str]
    finished: ModelCard | None = None
    resumes: bool = False

    @property
    def identity(self) -> dict[str, str]:
        """Settings with the keys of data and structures, which identify the run."""
        structures = ", ".join(self.datasets.classes)
        return {**self.settings, DATA: self.datasets.key, STRUCTURES: structures}

    def batch_request(self, step: int, ranks: range) -> BatchRequest:
        """Draws the crops of a step.

        Args:
            step: Number of the step, from 0.
            ranks: Ranks whose crops are returned. The crops of a step, numbered over all ranks,
                do not depend on the number of ranks.
        """
        request, sources = self.request, self.datasets.training
        num_cases = [len(source.cases) for source in sources]
        probabilities = sampling_probabilities(num_cases, request.temperature)
        per_rank = request.training.crops_per_step or 1
        picks = tuple(
            draw_crop_request(
                sources,
                probabilities,
                request.training.foreground_fraction,
                derived_seed(request.seed, "crops", step, number),
            )
            for number in range(ranks.start * per_rank, ranks.stop * per_rank)
        )
        num_classes = len(self.datasets.classes)
        return BatchRequest(picks, request.patch_size, num_classes, self.augmentations)

    @cached_property
    def augmentations(self) -> AugmentationPipeline:
        """The augmentations of the crops."""
        training = self.request.training
        return load_augmentations(training.augmentations, settings=training.components)


@dataclass
class PretrainingRun:
    """A training with its network, checkpoints and learning curve.

    Attributes:
        resolved: Request, datasets and initial weights.
        world: Ranks that train together.
        training: Weights, optimiser and progress.
        forward: The network as called for training: wrapped, and compiled if requested.
        checkpoints: Checkpoints of the run.
        callbacks: Observer of steps, epochs and validation.
        curve: Lines of the learning curve.
    """

    resolved: ResolvedPretraining
    world: DistributedContext
    training: Training
    forward: Callable[[Tensor], Tensor]
    checkpoints: CheckpointFolder
    callbacks: Callbacks
    curve: list[dict[str, Any]] = field(default_factory=list)

    def resume(self) -> None:
        """Restores the newest checkpoint, if it belongs to this request."""
        resumes = self.resolved.resumes
        state = self.world.run_on_rank_zero(lambda: self.checkpoints.load() if resumes else None)
        if state is None:
            return
        settings = upgrade_settings(state.pop(FACTS))
        num_ranks = state.pop("ranks")
        self.curve = state.pop("curve")
        self.training.restore(state)
        if self.world.rank == 0:
            self._log_resumption(settings, num_ranks)

    def _log_resumption(self, settings: Mapping[str, str], num_ranks: int) -> None:
        resolved, size = self.resolved, self.world.size
        altered = "the result will differ from an uninterrupted run"
        crops, former_crops = resolved.settings[CROPS], settings[CROPS]
        if crops != former_crops:
            ranks = f"{pluralise(size, 'rank')} and {crops} crops per step"
            former = f"{pluralise(num_ranks, 'rank')} and {former_crops}"
            logger.warning("resuming with %s instead of %s: %s", ranks, former, altered)
        elif size != num_ranks:
            ranks = pluralise(size, "rank")
            logger.warning("resuming with %s instead of %d, on the same crops", ranks, num_ranks)
        identity = resolved.identity
        requested = {key: identity[key] for key in MAY_CHANGE_ON_REQUEST}
        differences = describe_differences(requested, settings)
        if differences:
            logger.warning("resuming with different settings%s: %s", differences, altered)
        epochs = resolved.request.training.epochs
        logger.info("resuming after epoch %d of %d", len(self.training.losses), epochs)

    def train(self) -> None:
        """Trains until the schedule or the time budget ends.

        Raises:
            FseftError: The loss of a crop is not finite; the last checkpoint is kept.
        """
        request, world = self.resolved.request, self.world
        ranks = range(world.rank, world.rank + 1)
        validation = Validation.draw(
            self.resolved.datasets,
            world,
            count=request.steps_per_epoch,
            template=self.resolved.batch_request(0, ranks),
            seed=request.seed,
        )
        self.callbacks.on_start(self.resolved, len(self.training.losses) + 1)
        with BatchPrefetcher(
            read_batch,
            lambda step: self.resolved.batch_request(step, ranks),
            processes=request.workers,
        ) as prefetcher:
            train(
                self.training,
                lambda step: self._loss(prefetcher.batch(step), step),
                request.training,
                steps_per_epoch=request.steps_per_epoch,
                minutes=request.minutes,
                on_step=self.callbacks.on_step,
                on_epoch=lambda epoch: self._end_epoch(epoch, validation),
                save=self._save,
                world=world,
            )

    def _loss(self, batch: Batch, step: int) -> Tensor:
        """Loss of this rank; its mean over the ranks is the masked mean over all crops."""
        request, device = self.resolved.request, self.world.device
        labels = torch.from_numpy(batch.labels).to(device)
        annotated = torch.from_numpy(batch.annotated).to(device)
        torch.manual_seed(derived_seed(request.seed, "dropout", step, self.world.rank))
        logits = self._logits(torch.from_numpy(batch.images).to(device))
        reference = structure_masks(labels, annotated.shape[1])
        counts = (labels != IGNORED)[:, None]
        annotated = annotated * counts.flatten(1).any(1, keepdim=True)
        weights = None if counts.all() else counts
        losses = masked_losses(logits, reference, annotated, self.loss, weights=weights)
        self._check_finite(losses.tolist(), batch.origins, step)
        num_annotated = self.world.sum(annotated.sum()).clamp(min=1)
        return self.world.size * losses.sum() / num_annotated

    @cached_property
    def loss(self) -> Loss:
        """The loss with its settings."""
        training = self.resolved.request.training
        return load_loss(training.loss or _DEFAULT_LOSS, training.component_settings("loss"))

    def _check_finite(self, losses: Sequence[float], origins: Sequence[str], step: int) -> None:
        for loss, origin in zip(losses, origins, strict=True):
            if not math.isfinite(loss):
                remedy = "Correct the case or leave it out, or lower the learning rate"
                if self.curve:
                    remedy += "; the run can then be resumed from the last checkpoint"
                cause = f"the loss is {loss} at step {step} in {origin}"
                raise FseftError(cause, hint=f"{remedy}.")

    def _end_epoch(self, epoch: Epoch, validation: Validation) -> None:
        """Validates, and extends the learning curve."""
        network = self.training.adapted.network.eval()
        with self.training.ema_weights():
            dice = validation.dice(self._logits)
        network.train()
        line = {"epoch": epoch.number, "loss": epoch.loss, "learning_rate": epoch.learning_rate}
        self.curve.append({**line, "seconds": round(epoch.seconds, 2), "dice": dice})
        self.callbacks.on_epoch_end(epoch)
        if validation.crops:
            self.callbacks.on_validation_end(epoch, dice)
        if self.world.rank == 0:
            text = "".join(json.dumps(line) + "\n" for line in self.curve)
            write_text(self.checkpoints.folder / CURVE, text)

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.world.device, self.resolved.request.training.precision):
            return self.forward(images)

    def _save(self, state: dict[str, Any]) -> None:
        if self.world.rank == 0:
            extra = {
                FACTS: self.resolved.identity,
                "ranks": self.world.size,
                "curve": self.curve,
            }
            self.checkpoints.save({**state, **extra}, len(self.training.losses))
