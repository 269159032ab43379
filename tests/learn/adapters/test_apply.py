"""A method is applied and its network made ready: batch statistics stay, or are refused where nobody measured them."""

from __future__ import annotations

import pytest
import torch

from fseft.errors import FseftError, PluginError
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS

ARCHITECTURE = get_architecture("segresnet-ds")


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


def test_batch_statistics_without_weights_are_for_methods_that_measure_them(network):
    random = [name for name, _ in network.named_parameters() if name.startswith("up_layers")]
    refused = r"no weights were loaded for the batch norm up_layers\.0\.blocks\.0\.norm1.*Use --method full"
    with pytest.raises(FseftError, match=refused):
        adapt_network(
            ARCHITECTURE, network, method("lora"), decoder="frozen", seed=1, random=random
        )
    assert adapt_network(
        ARCHITECTURE, network, method("full"), decoder="frozen", seed=1, random=random
    ).train_mode


def test_a_method_that_forgets_to_return_is_told(network):
    class Forgetful:
        def apply(self, architecture, network, *, generator):
            pass

    with pytest.raises(
        PluginError, match=r"Forgetful\.apply\(\) returned NoneType, not AdaptedNetwork"
    ):
        adapt_network(ARCHITECTURE, network, Forgetful(), decoder="frozen", seed=1)


@pytest.mark.parametrize("how", ["fine-tuned", "low-rank", "new"])
def test_the_bottleneck_is_tuned_beside_a_method(how):
    chosen = get_architecture("swinunetr")
    network = build_network(
        chosen, in_channels=1, out_channels=3, hparams=TINY_NETWORKS["swinunetr"].hparams, seed=0
    )
    before = copies(network.named_parameters())
    (deepest,) = {t.name.split(".")[0] for t in chosen.targets(network) if t.part == "bottleneck"}
    adapted = adapt_network(
        chosen, network, method("bias"), decoder="frozen", bottleneck=how, seed=1
    )
    trained = {name for name, _ in adapted.trainable_parameters()}
    inside = {name for name, _ in network.named_parameters() if name.startswith(f"{deepest}.")}
    assert inside
    assert (inside <= trained) == (how != "low-rank")
    assert any(name.endswith("parametrizations.weight.0.b") for name in inside & trained) == (
        how == "low-rank"
    )
    changed = {
        name
        for name, p in network.named_parameters()
        if name in before and not torch.equal(p, before[name])
    }
    assert changed == (
        {name for name in inside if name.endswith("weight")} if how == "new" else set()
    )


def test_a_bottleneck_that_there_is_not_is_told(network, monkeypatch):
    targets = [target for target in ARCHITECTURE.targets(network) if target.part != "bottleneck"]
    monkeypatch.setattr(type(ARCHITECTURE), "targets", lambda *_: targets)
    with pytest.raises(FseftError, match="the network has no bottleneck"):
        adapt_network(
            ARCHITECTURE, network, method("bias"), decoder="frozen", bottleneck="low-rank", seed=1
        )
