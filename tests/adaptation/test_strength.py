"""The strength of the trained changes: which part of them an adapter keeps."""

from __future__ import annotations

import pytest
import torch

from fseft.adaptation import run as adaptation_run
from fseft.adaptation import strength
from fseft.adaptation.strength import interpolate
from fseft.learn.adapters.adapter_layers import Bottleneck
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.registry import registry
from fseft.schemas import Selection
from fseft.testing import TINY_NETWORKS
from tests.sample_data import adapt

EXACT = [
    ("affine", "resunet"),
    ("bias", "resunet"),
    ("cnn-adapter", "resunet"),
    ("compacter", "swinunetr"),
    ("full", "resunet"),
    ("ia3", "swinunetr"),
    ("linear-probe", "resunet"),
    ("lora", "resunet"),
    ("lora", "swinunetr"),
    ("ssf", "swinunetr"),
]
"""Methods that merge, on networks that have all layers that they change."""


def applied(method, network):
    architecture, hparams = get_architecture(network), TINY_NETWORKS[network].hparams
    built = build_network(architecture, in_channels=1, out_channels=3, hparams=hparams, seed=0)
    component = registry().create("method", method, registry().method(method).config())
    return adapt_network(architecture, built, component, decoder="low-rank", seed=0)


def merged(method, network, tensors):
    """The weights of the plain network of an adapter."""
    adapted = applied(method, network)
    adapted.load_state_dict(tensors)
    return adapted.merge().state_dict()


@pytest.mark.parametrize(("method", "network"), EXACT)
def test_a_strength_scales_the_change_of_every_merged_weight(method, network):
    adapted, fraction = applied(method, network), 0.25
    initial = adapted.state_dict()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in adapted.trainable_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    trained = adapted.state_dict()
    scaled = interpolate(initial, trained, fraction, adapted.kept_factors())
    before, after = merged(method, network, initial), merged(method, network, trained)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, weight in merged(method, network, scaled).items():
        if weight.is_floating_point():
            torch.testing.assert_close(weight, torch.lerp(before[name], after[name], fraction))


def test_a_strength_scales_what_a_branch_adds():
    branch = Bottleneck(4, 2, 0.1, torch.Generator().manual_seed(0))
    initial = {name: value.clone() for name, value in branch.state_dict().items()}
    trained = {name: value + torch.randn(value.shape) for name, value in initial.items()}
    x, outputs = torch.randn(5, 4), []
    for tensors in (interpolate(initial, trained, 0.25, branch.kept_factors), trained):
        branch.load_state_dict(tensors)
        outputs.append(branch(x))
    torch.testing.assert_close(outputs[0], 0.25 * outputs[1])


def test_a_divergence_that_the_strength_undoes_is_none(request_for, workspace, monkeypatch):
    train = adaptation_run.train_adapter

    def diverging(config, architecture, adapted, *args, **options):
        training = train(config, architecture, adapted, *args, **options)
        with torch.no_grad():
            for _, parameter in adapted.trainable_parameters():
                parameter.mul_(1e9)
        return training

    dice = iter([0.5, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr(adaptation_run, "train_adapter", diverging)
    monkeypatch.setattr(strength, "training_dice", lambda *_: {"tumour": next(dice)})
    selection = Selection(key="", method="lora", reason="")
    run = adapt(request_for("lora", selection=selection), workspace).run
    assert (run.strength.value, run.diverged) == (0, False)
