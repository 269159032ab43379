"""The Dice of a training follows its predictions, structure by structure."""

from __future__ import annotations

import pytest
import torch

from fseft.learn.training.running_dice import RunningDice


def logits_of(labels, classes):
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def halves(low, high):
    """Labels (1, 8, 8, 8) with one value in each half."""
    labels = torch.full((1, 8, 8, 8), low)
    labels[:, 4:] = high
    return labels


def test_it_is_the_dice_of_the_step_at_first():
    dice = RunningDice(["liver", "spleen", "absent"])
    predicted = halves(1, 2)
    predicted[:, 2:4] = 2  # a quarter of the volume is taken for spleen
    dice.update(logits_of(predicted, 4), halves(1, 2))
    assert dice.scores() == {"liver": pytest.approx(2 / 3, abs=1e-3), "spleen": 0.8}


def test_earlier_steps_fade():
    dice = RunningDice(["liver"])
    dice.update(logits_of(halves(0, 0), 2), halves(0, 1))
    assert dice.scores() == {"liver": 0}
    for _ in range(12):
        dice.update(logits_of(halves(0, 1), 2), halves(0, 1))
    assert dice.scores()["liver"] > 0.95


def test_voxels_without_a_class_are_not_counted():
    dice = RunningDice(["liver"])
    reference = halves(-1, 1)
    dice.update(logits_of(halves(1, 1), 2), reference)
    assert dice.scores() == {"liver": 1}


def test_a_crop_counts_only_for_the_structures_that_its_case_annotates():
    dice = RunningDice(["liver", "spleen"])
    labels = torch.cat([halves(1, 2), halves(1, 0)])
    predicted = torch.cat([halves(1, 2), halves(2, 1)])  # the second case has no spleen drawn
    dice.update(logits_of(predicted, 3), labels, torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert dice.scores() == {"liver": 0.5, "spleen": 1}
    dice = RunningDice(["liver", "spleen"])
    dice.update(logits_of(predicted, 3), labels)
    assert dice.scores()["spleen"] == pytest.approx(2 / 3, abs=1e-3)
