"""Checks of losses, augmentations, schedules and optimizers, as parameters of a test."""

from __future__ import annotations

import copy
import math
import pickle
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fseft.learn.sampling.augmentation import (
    AugmentationPipeline,
    AugmentationStep,
    load_augmentations,
)
from fseft.learn.training.losses import load_loss, masked_losses, segmentation_loss
from fseft.learn.training.optimization import load_schedule, make_optimizer
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters
from fseft.training_config import TrainingConfig
from fseft.volume.label_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet
    from torch import Tensor

    from fseft.learn.sampling.augmentation import Array
    from fseft.schemas import Triple

SIZE: Triple = (10, 12, 14)


def loss_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of a loss as parameters of a test.

    ```python
    @pytest.mark.parametrize("check", loss_checks("my-loss"))
    def test_my_loss(check):
        check()
    ```

    Args:
        name: Name of the loss in the registry.
        xfail: Check -> reason why the loss cannot pass it; it must then fail.

    Raises:
        ValueError: `xfail` names an unknown check.
    """
    return parameters(name, LOSS_CHECKS, name, xfail)


def augmentation_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of an augmentation as parameters of a test, see `loss_checks`.

    Args:
        name: Name of the augmentation in the registry.
        xfail: Check -> reason why the augmentation cannot pass it; it must then fail.

    Raises:
        ValueError: `xfail` names an unknown check.
    """
    return parameters(name, AUGMENTATION_CHECKS, name, xfail)


def schedule_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of a schedule as parameters of a test, see `loss_checks`.

    Args:
        name: Name of the schedule in the registry.
        xfail: Check -> reason why the schedule cannot pass it; it must then fail.

    Raises:
        ValueError: `xfail` names an unknown check.
    """
    return parameters(name, SCHEDULE_CHECKS, name, xfail)


def optimizer_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of an optimizer as parameters of a test, see `loss_checks`.

    Args:
        name: Name of the optimizer in the registry.
        xfail: Check -> reason why the optimizer cannot pass it; it must then fail.

    Raises:
        ValueError: `xfail` names an unknown check.
    """
    return parameters(name, OPTIMIZER_CHECKS, name, xfail)


def _labels() -> Tensor:
    """Labels (2, i, j, k) of two structures."""
    labels = torch.zeros((2, *SIZE), dtype=torch.long)
    labels[:, 1:5, 1:7, 1:7] = 1
    labels[:, 6:9, 8:11, 8:12] = 2
    return labels


def _one_hot(labels: Tensor) -> Tensor:
    """Masks (B, 3, i, j, k) of background and structures."""
    return nn.functional.one_hot(labels, 3).movedim(-1, 1).float()


def prefers_the_reference(name: str) -> None:
    """The loss of the reference is smaller than that of another prediction."""
    labels = _labels()
    perfect = 50 * _one_hot(labels)
    loss = load_loss(name)
    other = segmentation_loss(perfect.roll(3, 2), labels, loss)
    assert segmentation_loss(perfect, labels, loss) < other


def has_a_finite_gradient(name: str) -> None:
    """The gradient is finite and not zero, also where a structure is absent."""
    generator = torch.Generator().manual_seed(0)
    for labels in (_labels(), torch.zeros_like(_labels())):
        logits = torch.randn((2, 3, *SIZE), generator=generator, requires_grad=True)
        loss = segmentation_loss(logits, labels, load_loss(name))
        loss.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad.any()


def counts_voxels_by_their_weights(name: str) -> None:
    """A voxel with weight 2 counts as two voxels."""
    logits = torch.randn((60, 3), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    weights = torch.ones(60)
    weights[:20] = 2
    loss = load_loss(name)
    weighted = segmentation_loss(logits, labels, loss, weights=weights)
    repeated_logits = torch.cat([logits, logits[:20]])
    repeated_labels = torch.cat([labels, labels[:20]])
    repeated = segmentation_loss(repeated_logits, repeated_labels, loss)
    torch.testing.assert_close(weighted, repeated)


def leaves_out_ignored_voxels(name: str) -> None:
    """The loss with ignored voxels is that of the other voxels alone, with the same gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, *SIZE), generator=generator, requires_grad=True)
    labels, loss = _labels(), load_loss(name)
    labels[:, :, 5:] = IGNORED
    ignoring = segmentation_loss(logits, labels, loss)
    (gradient,) = torch.autograd.grad(ignoring, logits)
    cropped = segmentation_loss(logits[:, :, :, :5], labels[:, :, :5], loss)
    (expected,) = torch.autograd.grad(cropped, logits)
    torch.testing.assert_close(ignoring, cropped)
    torch.testing.assert_close(gradient, expected)


def is_zero_if_all_voxels_are_ignored(name: str) -> None:
    """Without any voxel that counts, the loss is 0 and has no gradient."""
    logits = torch.randn((2, 3, *SIZE), generator=torch.Generator().manual_seed(0))
    logits.requires_grad_()
    labels, loss = torch.full((2, *SIZE), IGNORED), load_loss(name)
    weights = torch.zeros((2, 1, *SIZE))
    for value in (
        segmentation_loss(logits, labels, loss),
        segmentation_loss(logits, labels, loss, annotated=torch.ones(2, 2)),
        (masked_losses(logits, 0 * logits, torch.zeros(2, 3), loss, weights=weights)).sum(),
    ):
        (gradient,) = torch.autograd.grad(value, logits)
        assert value == 0
        assert not gradient.any()


def scores_each_case_for_partial_labels(name: str) -> None:
    """With independent structures, a case and structure without annotation has no gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 2, *SIZE), generator=generator, requires_grad=True)
    annotated = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    losses = masked_losses(logits, _one_hot(_labels())[:, 1:], annotated, load_loss(name))
    assert losses.shape == (2,)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.flatten(2).any(2).float().equal(annotated)


def _always(name: str) -> AugmentationPipeline:
    """Returns a pipeline that applies the augmentation to each crop."""
    (step,) = load_augmentations([name]).steps
    return AugmentationPipeline((AugmentationStep(step.augmentation, 1.0, step.spatial),))


def _augmented(name: str, image: Array, label: Array) -> tuple[Array, Array]:
    pipeline = _always(name)
    drawn = pipeline.draw(np.random.default_rng(1), image.shape)
    return pipeline.apply(drawn, image, label, SIZE)


def _crop(channels: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(0)
    image = generator.random((channels, *SIZE), np.float32)
    label = _labels()[:1].numpy()
    return image, label.astype(np.int16)


def keeps_shape_and_label_values(name: str) -> None:
    """Image and label keep their shapes, and the label has no other values."""
    for channels in (1, 2):
        image, label = _augmented(name, *_crop(channels))
        assert image.shape == (channels, *SIZE)
        assert label.shape == (1, *SIZE)
        assert np.isfinite(image).all()
        assert set(np.unique(label)) <= {0, 1, 2}


def depends_on_its_parameters_alone(name: str) -> None:
    """The same seed gives the same crop, without the global generators of NumPy and Python."""
    states = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    first = _augmented(name, *_crop(1))
    again = _augmented(name, *_crop(1))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert states == (random.getstate(), pickle.dumps(np.random.get_state()))  # noqa: NPY002


def leaves_the_crop_unchanged(name: str) -> None:
    """The arrays of the crop are not changed in place."""
    image, label = _crop(1)
    _augmented(name, image, label)
    np.testing.assert_array_equal(image, _crop(1)[0])
    np.testing.assert_array_equal(label, _crop(1)[1])


def scales_between_zero_and_one(name: str) -> None:
    """The factor of the learning rate is between 0 and 1, and is 1 after the warm-up."""
    schedule = load_schedule(name)
    for warmup_fraction in (0.0, 0.1, 0.9):
        factors = [schedule(step / 100, warmup_fraction) for step in range(101)]
        assert all(0 <= factor <= 1 for factor in factors)
        assert math.isclose(max(factors), 1, abs_tol=0.02)


def starts_to_learn_at_the_first_step(name: str) -> None:
    """The first factor is more than 0."""
    assert load_schedule(name)(0.0, 0.1) > 0


def minimises_a_square(name: str) -> None:
    """A hundred steps bring a parameter closer to the minimum, with the rate of each group."""
    parameter = nn.Parameter(torch.ones(3))
    config = TrainingConfig(optimizer=name, learning_rate=0.01)
    optimizer = make_optimizer(lambda rate: [{"params": [parameter], "lr": rate}], 1.0, config)
    assert optimizer.param_groups[0]["lr"] == 0.01
    for _ in range(100):
        optimizer.zero_grad()
        parameter.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert parameter.square().sum() < 3


def resumes_from_its_state(name: str) -> None:
    """An optimizer with the state of another one makes the same steps."""
    config = TrainingConfig(optimizer=name, learning_rate=0.01, weight_decay=0.01)

    def make() -> tuple[nn.Parameter, torch.optim.Optimizer]:
        parameter = nn.Parameter(torch.ones(3))
        groups = lambda rate: [{"params": [parameter], "lr": rate}]  # noqa: E731
        return parameter, make_optimizer(groups, 1.0, config)

    def step(parameter: nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        parameter.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    parameter, optimizer = make()
    step(parameter, optimizer)
    resumed_parameter, resumed = make()
    resumed_parameter.data.copy_(parameter.data)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(parameter, optimizer)
    step(resumed_parameter, resumed)
    assert torch.equal(parameter, resumed_parameter)


def _lazy(kind: str) -> Callable[[str], None]:
    def loads_no_torch_before_it_is_chosen(name: str) -> None:
        """The plugin is listed without torch."""
        assert_listed_without_torch(kind, name)

    return loads_no_torch_before_it_is_chosen


LOSS_CHECKS: tuple[Callable[[str], None], ...] = (
    prefers_the_reference,
    has_a_finite_gradient,
    counts_voxels_by_their_weights,
    leaves_out_ignored_voxels,
    is_zero_if_all_voxels_are_ignored,
    scores_each_case_for_partial_labels,
    _lazy("loss"),
)
AUGMENTATION_CHECKS: tuple[Callable[[str], None], ...] = (
    keeps_shape_and_label_values,
    depends_on_its_parameters_alone,
    leaves_the_crop_unchanged,
    _lazy("augmentation"),
)
SCHEDULE_CHECKS: tuple[Callable[[str], None], ...] = (
    scales_between_zero_and_one,
    starts_to_learn_at_the_first_step,
    _lazy("schedule"),
)
OPTIMIZER_CHECKS: tuple[Callable[[str], None], ...] = (
    minimises_a_square,
    resumes_from_its_state,
    _lazy("optimizer"),
)
