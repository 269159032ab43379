"""The checks of models detect each violation, and every built-in model passes them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fseft.plugin import CheckpointSpec, FoundationModelSpec
from fseft.registry import registry
from fseft.testing import model_checks, models
from fseft.testing.models import Entry


@pytest.mark.parametrize(
    "check", [check for name in registry().names("model") for check in model_checks(name)]
)
def test_a_model_keeps_the_contract(check):
    check()


BTCV = next(spec for spec in registry().specs("model", FoundationModelSpec) if spec.name == "btcv")


def carded(**changed):
    return replace(BTCV, card=BTCV.card.model_copy(update=changed))


def loaded(**changed):
    return replace(BTCV, checkpoint=replace(BTCV.checkpoint, **changed))


@pytest.mark.parametrize(
    ("flawed", "check"),
    [
        (carded(name="other"), models.has_the_name_of_its_card),
        (carded(architecture="resunet"), models.has_valid_hparams),
        (
            carded(contract=BTCV.card.contract.model_copy(update={"patch_size": (96, 96, 100)})),
            models.has_a_valid_patch_size,
        ),
        (carded(classes=("liver", "Liver")), models.has_distinct_classes),
        (carded(classes=("background", "liver")), models.has_distinct_classes),
        (replace(BTCV, checkpoint=None), models.has_a_source_of_weights),
        (replace(BTCV, checkpoint=CheckpointSpec(file="a.pt")), models.has_a_source_of_weights),
        (loaded(renames=((r"^(a", "b"),)), models.has_valid_patterns_and_functions),
        (loaded(renames=((r"^a", r"\1"),)), models.has_valid_patterns_and_functions),
        (loaded(convert="json:decoder"), models.has_valid_patterns_and_functions),
    ],
)
def test_a_violation_is_detected(flawed, check):
    class FlawedEntry(Entry):
        spec = flawed

    with pytest.raises(AssertionError):
        check(FlawedEntry("btcv"))
