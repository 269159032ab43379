"""Costs of networks: those that ship with the package are right, others are measured once."""

from __future__ import annotations

import pytest

from fseft import api
from fseft.learn.networks.backbone import get_architecture, validate_hparams
from fseft.learn.training import cost_measurement, network_cost
from fseft.learn.training.cost_measurement import measure_cost
from fseft.learn.training.network_cost import SHIPPED, NetworkCosts, cost_key
from fseft.registry import registry
from fseft.workspace import read_document

TINY = {"channels": [4, 8], "features": 4}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path))
    network_cost._cost.cache_clear()
    yield tmp_path
    network_cost._cost.cache_clear()


def test_a_network_is_measured_once_and_then_read(cache, monkeypatch):
    measured = network_cost.network_cost("resunet", TINY, 1)
    assert measured == measure_cost("resunet", TINY, 1)
    network_cost._cost.cache_clear()
    monkeypatch.setattr(cost_measurement, "measure_cost", None)
    assert network_cost.network_cost("resunet", {**TINY, "channels": (4, 8)}, 1) == measured


def test_a_damaged_file_is_measured_again(cache):
    measured = network_cost.network_cost("resunet", TINY, 1)
    network_cost._cost.cache_clear()
    for path in (cache / "network-costs").iterdir():
        path.write_text("{")
    assert network_cost.network_cost("resunet", TINY, 1) == measured


def test_the_costs_of_the_embedded_model_ship_with_the_package():
    card = api.get_model("phantom-tiny").card
    shipped = network_cost.network_cost(card.architecture, card.hparams, 1)
    assert shipped == measure_cost(card.architecture, card.hparams, 1)


def test_every_model_of_the_catalogue_has_its_costs():
    shipped = read_document(SHIPPED, NetworkCosts).costs
    for name in api.list_models("no workspace"):
        card = api.get_model(name).card
        if registry().provenance("architecture", card.architecture).distribution == "fseft":
            values = validate_hparams(get_architecture(card.architecture), card.hparams)
            channels = card.contract.channels
            assert cost_key(card.architecture, values.model_dump_json(), channels) in shipped
