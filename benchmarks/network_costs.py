"""Measures the networks of the catalogue again, into fseft/learn/training/network_costs.json.

`fseft plan` reads the file instead of importing PyTorch. Run it after a change of an architecture,
of its defaults, or of the catalogue.
"""

from __future__ import annotations

from fseft import api
from fseft.learn.networks import backbone
from fseft.learn.training.cost_measurement import measure_cost
from fseft.learn.training.network_cost import SHIPPED, NetworkCosts, cost_key
from fseft.registry import registry
from fseft.workspace import write_document


def main() -> None:
    """Measures, and writes the file."""
    costs = {}
    for name in api.list_models("."):
        card = api.get_model(name, ".").card
        if registry().provenance("architecture", card.architecture).distribution != "fseft":
            continue  # measured by whoever uses it
        architecture = backbone.get_architecture(card.architecture)
        hparams = backbone.validate_hparams(architecture, card.hparams).model_dump_json()
        # A model without weights takes as many channels as the dataset has.
        for channels in (1, 2, 3, 4) if name == "none" else (card.contract.channels,):
            key = cost_key(card.architecture, hparams, channels)
            if key not in costs:
                costs[key] = measure_cost(card.architecture, card.hparams, channels)
                print(key, costs[key])
    write_document(SHIPPED, NetworkCosts(costs=dict(sorted(costs.items()))))


if __name__ == "__main__":
    main()
