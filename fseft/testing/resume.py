"""A training that is cut off and goes on, as `fseft adapt` does after a kill."""

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
    from fseft.learn.training_loop import Training
    from fseft.testing.method_harness import MethodHarness

CASES, EPOCHS, CUT = 2, 2, 1
"""k, how long the training is, and after how many epochs it is cut off."""
RECIPE = TrainingConfig(
    epochs=EPOCHS, learning_rate=0.01, early_stopping=False, checkpoint_seconds=0
)


def goes_on_after_a_kill(subject: MethodHarness) -> None:
    """Cut off after an epoch, and gone on with from its checkpoint, it ends at the very same adapter."""
    if not subject.adapted().trainable_parameters():
        return
    states: list[bytes] = []
    whole, whole_losses = _ended(subject, None, states)
    resumed, losses = _ended(subject, states[CUT - 1], [])
    before, after = whole.state_dict(), resumed.state_dict()
    assert after.keys() == before.keys()
    assert [name for name, tensor in after.items() if not torch.equal(tensor, before[name])] == []
    assert losses == whole_losses
    assert resumed.notes() == whole.notes()


def _ended(
    subject: MethodHarness, state: bytes | None, states: list[bytes]
) -> tuple[AdaptedNetwork, list[float]]:
    """The adapted network after a training, from the start or from a state, and the losses.

    Args:
        subject: What is trained.
        state: A checkpoint's content.
        states: Gets those of this training.
    """
    adapted = subject.adapted()
    adapted.train()
    if state is None:
        adapted.calibrate(iter([subject.x] * CASES))
    training = make_training_state(adapted, RECIPE)
    if state is not None:
        training.restore(torch.load(io.BytesIO(state), weights_only=True))

    def loss_of(step: int) -> Tensor:
        held_out = frozenset(adapted.held_out_cases(1 + step // CASES, CASES))
        torch.manual_seed(step)  # of dropout
        return subject.loss(adapted.network, shift=step + CASES * EPOCHS * sum(held_out))

    def on_epoch_validation(epoch: Epoch) -> None:
        adapted.network.eval()
        with torch.no_grad():
            adapted.on_epoch_validation(
                epoch, CASES, lambda case, count: subject.crops(count, shift=epoch.number + case)
            )
        adapted.train()

    _fit(training, loss_of, on_epoch_validation, states)
    adapted.finish()
    return adapted, training.losses


def _fit(training: Training, loss_of: Any, audit: Any, states: list[bytes]) -> None:
    def save(state: dict[str, Any]) -> None:
        content = io.BytesIO()
        torch.save(state, content)
        states.append(content.getvalue())

    train(training, loss_of, RECIPE, steps_per_epoch=CASES, on_epoch=audit, save=save)
