"""The built-in losses, augmentations, schedules and optimizers satisfy their contracts."""

from __future__ import annotations

import pytest

from fseft.registry import registry
from fseft.testing import augmentation_checks, loss_checks, optimizer_checks, schedule_checks

CHECKS = {
    "loss": loss_checks,
    "augmentation": augmentation_checks,
    "schedule": schedule_checks,
    "optimizer": optimizer_checks,
}
ALL = [
    check
    for kind, checks_of in CHECKS.items()
    for name in registry().names(kind)
    for check in checks_of(name)
]


@pytest.mark.parametrize("check", ALL)
def test_the_contract(check):
    check()
