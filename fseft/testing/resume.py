"""Interrupts a training and resumes it from its checkpoint, as `fseft adapt` does."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch

from fseft.learn.training_loop import make_training_state, train
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from torch import Tensor

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.learn.training.progress import Epoch
    from fseft.testing.method_harness import MethodHarness

CASES = 2
"""k, the number of training cases, which is the number of steps per epoch."""
EPOCHS, INTERRUPTED_AFTER = 2, 1
"""Length of the training, and the number of epochs before it is interrupted."""
TRAINING = TrainingConfig(
    epochs=EPOCHS, learning_rate=0.01, early_stopping=False, checkpoint_seconds=0
)


def resumes_to_the_same_adapter(subject: MethodHarness) -> None:
    """Interrupted after an epoch and resumed, a training ends with exactly the same adapter."""
    if not subject.adapted().trainable_parameters():
        return
    uninterrupted = _Trainer(subject)
    uninterrupted.run()
    resumed = _Trainer(subject, uninterrupted.checkpoints[INTERRUPTED_AFTER - 1])
    resumed.run()
    expected, tensors = uninterrupted.adapted.state_dict(), resumed.adapted.state_dict()
    assert tensors.keys() == expected.keys()
    assert [name for name in tensors if not torch.equal(tensors[name], expected[name])] == []
    assert resumed.training.losses == uninterrupted.training.losses
    assert resumed.adapted.notes() == uninterrupted.adapted.notes()


class _Trainer:
    """A training of the method from the start, or from a checkpoint.

    Attributes:
        checkpoints: Contents of the checkpoints that were saved, one per epoch.
    """

    def __init__(self, subject: MethodHarness, checkpoint: bytes | None = None) -> None:
        self.subject = subject
        self.checkpoints: list[bytes] = []
        self.adapted: AdaptedNetwork = subject.adapted()
        self.adapted.train()
        if checkpoint is None:
            self.adapted.calibrate(iter([subject.x] * CASES))
        self.training = make_training_state(self.adapted, TRAINING)
        if checkpoint is not None:
            self.training.restore(torch.load(io.BytesIO(checkpoint), weights_only=True))

    def run(self) -> None:
        """Trains to the end."""
        train(
            self.training,
            self.loss_of,
            TRAINING,
            steps_per_epoch=CASES,
            on_epoch=self.on_epoch,
            save=self.save,
        )
        self.adapted.finish()

    def loss_of(self, step: int) -> Tensor:
        """Returns the loss of a step; the crop depends on the step and on the held-out cases."""
        held_out = frozenset(self.adapted.held_out_cases(1 + step // CASES, CASES))
        torch.manual_seed(step)  # for dropout
        shift = step + CASES * EPOCHS * sum(held_out)
        return self.subject.loss(self.adapted.network, shift=shift)

    def on_epoch(self, epoch: Epoch) -> None:
        """Validates on crops that depend on the epoch and the case."""

        def crops_of(case: int, count: int) -> tuple[Tensor, Tensor]:
            return self.subject.crops(count, shift=epoch.number + case)

        self.adapted.network.eval()
        with torch.no_grad():
            self.adapted.on_epoch_validation(epoch, CASES, crops_of)
        self.adapted.train()

    def save(self, state: dict[str, Any]) -> None:
        """Keeps the content of a checkpoint."""
        content = io.BytesIO()
        torch.save(state, content)
        self.checkpoints.append(content.getvalue())
