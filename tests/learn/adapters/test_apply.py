"""A method is applied, and decoder or bottleneck are trained in addition."""

from __future__ import annotations

import copy

import pytest
import torch

from fseft.builtin.methods.full import Full
from fseft.errors import FseftError, PluginError
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS

ARCHITECTURE = get_architecture("segresnet-ds")
SWINUNETR = get_architecture("swinunetr")


@pytest.fixture
def network():
    """With batch statistics that are not those of a network without data."""
    network = build_network(
        ARCHITECTURE,
        in_channels=1,
        out_channels=3,
        hparams=TINY_NETWORKS["segresnet-ds"].hparams,
        seed=0,
    )
    with torch.no_grad():
        network.train()(torch.randn((2, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0)))
    return network


def copies(named):
    return {name: tensor.detach().clone() for name, tensor in named}


def method(name):
    return registry().create("method", name, registry().method(name).config())


def test_a_new_decoder_keeps_the_batch_statistics_since_a_frozen_network_learns_no_others(network):
    parameters, statistics = copies(network.named_parameters()), copies(network.named_buffers())
    adapted = adapt_network(ARCHITECTURE, network, method("linear-probe"), decoder="new", seed=1)
    assert not adapted.train_mode
    assert [
        name
        for name, buffer in network.named_buffers()
        if not torch.equal(buffer, statistics[name])
    ] == []
    changed = [
        name for name, p in network.named_parameters() if not torch.equal(p, parameters[name])
    ]
    assert changed
    assert all(name.startswith("up_layers") for name in changed)


def test_initial_batch_statistics_are_refused_by_methods_that_freeze_them(network):
    missing = [name for name, _ in network.named_parameters() if name.startswith("up_layers")]

    def apply(name):
        return adapt_network(
            ARCHITECTURE, network, method(name), decoder="frozen", seed=1, missing_keys=missing
        )

    with pytest.raises(FseftError, match=r"up_layers\.0\.blocks\.0\.norm1.*Use the method full"):
        apply("lora")
    assert apply("full").train_mode


def test_pretrained_decoders_of_small_networks_are_trained_at_the_rate_of_full(
    network, monkeypatch
):
    layer = "up_layers.0.blocks.0.conv1"

    def decoder_rate(decoder="fine-tuned", missing_keys=()):
        adapted = adapt_network(
            ARCHITECTURE,
            copy.deepcopy(network),
            method("lora"),
            decoder=decoder,
            seed=1,
            missing_keys=missing_keys,
        )
        rates = {
            adapted.learning_rate * adapted.lr_multipliers[name]
            for name, _ in adapted.trainable_parameters()
            if name.startswith(layer)
        }
        (rate,) = rates
        return pytest.approx(rate)

    assert decoder_rate() == Full.learning_rate_if_small
    assert decoder_rate("new") == 1e-3
    unloaded = [name for name, _ in network.named_parameters() if name.startswith(layer)]
    assert decoder_rate(missing_keys=unloaded) == 1e-3
    monkeypatch.setattr("fseft.learn.networks.backbone.SMALL_NETWORK", 10)
    assert decoder_rate() == 1e-3


def test_a_method_that_returns_nothing_is_refused(network):
    class Silent:
        def apply(self, architecture, network, *, generator):
            pass

    with pytest.raises(
        PluginError, match=r"Silent\.apply\(\) returned NoneType, not AdaptedNetwork"
    ):
        adapt_network(ARCHITECTURE, network, Silent(), decoder="frozen", seed=1)


@pytest.fixture
def swinunetr():
    hparams = TINY_NETWORKS["swinunetr"].hparams
    return build_network(SWINUNETR, in_channels=1, out_channels=3, hparams=hparams, seed=0)


def bottleneck_parameters(network):
    """Return the names of all parameters of the deepest level."""
    targets = SWINUNETR.targets(network)
    deepest = {target.name.split(".")[0] for target in targets if target.part == "bottleneck"}
    names = {name for name, _ in network.named_parameters()}
    return {name for name in names if name.split(".")[0] in deepest}


def adapt_with_bottleneck(network, mode):
    return adapt_network(
        SWINUNETR, network, method("bias"), decoder="frozen", bottleneck=mode, seed=1
    )


@pytest.mark.parametrize(("mode", "changed"), [("fine-tuned", False), ("new", True)])
def test_a_bottleneck_is_trained_in_addition_to_a_method(swinunetr, mode, changed):
    initial = copies(swinunetr.named_parameters())
    adapted = adapt_with_bottleneck(swinunetr, mode)
    inside = bottleneck_parameters(swinunetr)
    assert inside <= {name for name, _ in adapted.trainable_parameters()}
    parameters = dict(swinunetr.named_parameters())
    different = {name for name in initial if not torch.equal(parameters[name], initial[name])}
    weights = {name for name in inside if name.endswith("weight")}
    assert different == (weights if changed else set())


def test_a_low_rank_bottleneck_trains_deltas_on_its_frozen_weights(swinunetr):
    adapted = adapt_with_bottleneck(swinunetr, "low-rank")
    inside = bottleneck_parameters(swinunetr)
    trained = inside & {name for name, _ in adapted.trainable_parameters()}
    assert any(name.endswith("parametrizations.weight.0.b") for name in trained)
    assert not any(name.endswith("original") for name in trained)


def test_a_network_without_a_bottleneck_is_refused(network, monkeypatch):
    targets = [target for target in ARCHITECTURE.targets(network) if target.part != "bottleneck"]
    monkeypatch.setattr(type(ARCHITECTURE), "targets", lambda *_: targets)
    with pytest.raises(FseftError, match="the network has no bottleneck"):
        adapt_network(
            ARCHITECTURE, network, method("bias"), decoder="frozen", bottleneck="low-rank", seed=1
        )
