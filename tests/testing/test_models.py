"""The checks of models find what they are there to find; every model of the core passes them."""

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
        (carded(name="other"), models.is_called_as_its_card_says),
        (carded(architecture="resunet"), models.sets_what_its_network_has),
        (
            carded(contract=BTCV.card.contract.model_copy(update={"patch_size": (96, 96, 100)})),
            models.expects_patches_that_its_network_takes,
        ),
        (carded(classes=("liver", "Liver")), models.tells_its_classes_apart),
        (carded(classes=("background", "liver")), models.tells_its_classes_apart),
        (replace(BTCV, checkpoint=None), models.says_where_its_weights_are),
        (replace(BTCV, checkpoint=CheckpointSpec(file="a.pt")), models.says_where_its_weights_are),
        (loaded(renames=((r"^(a", "b"),)), models.names_what_there_is),
        (loaded(renames=((r"^a", r"\1"),)), models.names_what_there_is),
        (loaded(convert="json:decoder"), models.names_what_there_is),
    ],
)
def test_a_flaw_is_found(flawed, check):
    class OfTheFlawed(Entry):
        spec = flawed

    with pytest.raises(AssertionError):
        check(OfTheFlawed("btcv"))
