"""PEFT's layers in a network of fseft, beyond the contract."""

from __future__ import annotations

import dataclasses
import re
from copy import deepcopy

import pytest
import torch
from torch import nn

from fseft.errors import FseftError
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, get_architecture
from fseft.learn.training_loop import make_training_state, train
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS
from fseft.training_config import TrainingConfig
from fseft_hf_peft.library import peft
from fseft_hf_peft.method import is_supported
from fseft_hf_peft.tuners import TUNERS

RECIPE = TrainingConfig(epochs=6, learning_rate=0.01, early_stopping=False)
X = torch.randn((2, 1, 4, 8, 8), generator=torch.Generator().manual_seed(0))


def adapted(method, network="tokens", seed=1, **config):
    arch = get_architecture(network)
    hparams = {} if network == "tokens" else TINY_NETWORKS[network].hparams
    base = build_network(arch, in_channels=1, out_channels=2, hparams=hparams, seed=0)
    tuner = registry().create("method", method, registry().method(method).config(**config))
    return adapt_network(arch, base, tuner, decoder="frozen", seed=seed)


def loss_of(network):
    return lambda step: nn.functional.cross_entropy(network(X + 0.01 * step), (X[:, 0] > 0).long())


def names(network):
    return {re.sub(r"\.peft\..*", "", name) for name, _ in network.trainable_parameters()}


# --- the table of tuners -------------------------------------------------------------------------


@pytest.mark.parametrize("tuner", TUNERS, ids=lambda tuner: tuner.name)
def test_settings_are_those_of_peft(tuner):
    fields = {field.name for field in dataclasses.fields(getattr(peft, tuner.config))}
    assert tuner.settings.keys() | tuner.fixed.keys() <= fields
    assert tuner.settings.keys() & tuner.fixed.keys() == set()


def test_there_are_32_tuners():
    assert len({tuner.method for tuner in TUNERS}) == len({tuner.config for tuner in TUNERS}) == 32


def test_a_setting_reaches_the_layers():
    assert {
        p.shape[0] for name, p in adapted("hf-lora", r=3).trainable_parameters() if "lora_A" in name
    } == {3}


# --- where they work -----------------------------------------------------------------------------


def test_layers_are_chosen_by_role():
    assert names(adapted("hf-lora", roles=("attn.proj",))) == {
        "attn.proj",
        "head.weight",
        "head.bias",
    }


def test_no_layer_is_changed_whose_name_only_ends_the_same():
    arch = get_architecture("tokens")
    network = build_network(arch, in_channels=1, out_channels=2, hparams={}, seed=0)
    network.other = nn.ModuleDict({"attn": nn.ModuleDict({"qkv": nn.Linear(3, 3)})})
    method = registry().create(
        "method", "hf-lora", registry().method("hf-lora").config(roles=("attn.qkv",))
    )
    result = adapt_network(arch, network, method, decoder="frozen", seed=0)
    assert names(result) == {"attn.qkv", "head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ({"kernel_size": 3}, True),
        ({"kernel_size": (1, 3, 3), "stride": 2}, True),
        ({"kernel_size": 1}, False),
        ({"kernel_size": (1, 1, 3)}, False),
        ({"kernel_size": 3, "dilation": 2}, False),
        ({"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, False),
        ({"kernel_size": 3, "groups": 2}, False),
    ],
)
def test_convolutions_that_peft_computes_or_merges_wrongly_are_left_alone(options, right):
    conv = nn.Conv3d(4, 4, **options)
    assert is_supported(conv) is right
    # If this fails with a newer PEFT, `is_supported` can accept the layer.
    assert peft_can_merge(conv) is right


def peft_can_merge(conv):
    """Return whether PEFT's layer computes the same output after merging."""
    config = peft.LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
    x = torch.randn(1, 4, 7, 7, 7)
    try:
        network = peft.inject_adapter_in_model(config, nn.Sequential(conv))
        unmerged = network(x)
        network[0].merge()
        return torch.allclose(unmerged, network(x), atol=1e-4)
    except (NotImplementedError, RuntimeError, UserWarning):
        return False


@pytest.mark.parametrize(
    ("method", "network", "config", "message"),
    [
        ("hf-lokr", "resunet", {}, "'hf-lokr' requires attn.qkv or"),
        ("hf-lora", "mednext", {}, "that PEFT can change"),
        ("hf-psoft", "tokens", {"r": 100}, "must be less than or equal"),
        ("hf-c3a", "tokens", {"block_size": 7}, "7"),
        ("hf-lora", "tokens", {"r": 0}, "positive"),
    ],
)
def test_layers_and_settings_that_peft_refuses_are_errors(method, network, config, message):
    with pytest.raises(FseftError, match=message) as caught:
        adapted(method, network, **config)
    assert method in str(caught.value)


# --- what they do in training --------------------------------------------------------------------


def test_another_seed_starts_elsewhere():
    starts = [dict(adapted("hf-lora", seed=seed).trainable_parameters()) for seed in (1, 2)]
    name = next(name for name in starts[0] if "lora_A" in name)
    assert not torch.equal(starts[0][name], starts[1][name])


def test_the_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    adapted("hf-vera")
    assert torch.equal(torch.get_rng_state(), state)


def test_pvera_samples_in_training_only():
    result = adapted("hf-pvera")
    for name, parameter in result.trainable_parameters():
        if "lambda_b" in name:
            parameter.data.fill_(1.0)
    result.network.eval()
    assert torch.equal(result.network(X), result.network(X))
    result.train()
    assert not torch.equal(result.network(X), result.network(X))
    assert not result.network.attn.qkv.training


def test_adalora_ends_at_its_budget():
    result = adapted("hf-adalora", init_r=6, target_r=2)
    train(make_training_state(result, RECIPE), loss_of(result.network), RECIPE, steps_per_epoch=1)
    values = torch.cat(
        [p.detach().flatten() for name, p in result.trainable_parameters() if "lora_E" in name]
    )
    assert (len(values), int(values.count_nonzero())) == (4 * 6, 4 * 2)


def test_adalora_keeps_its_factors_close_to_orthonormal():
    result = adapted("hf-adalora")
    for name, parameter in result.trainable_parameters():
        if "lora_A" in name or "lora_B" in name:
            nn.init.orthogonal_(parameter)
    assert float(result.regularizer().detach()) < 1e-5
    assert float(adapted("hf-adalora").regularizer().detach()) > 0.1


def test_adalora_resumes_to_the_same_result():
    def trained(result, state=None):
        training = make_training_state(result, RECIPE)
        if state:
            training.restore(state)
        states = []
        recipe = RECIPE.model_copy(update={"checkpoint_seconds": 0.0})
        keep = lambda state: states.append(deepcopy(state))  # noqa: E731
        train(training, loss_of(result.network), recipe, steps_per_epoch=1, save=keep)
        return states

    whole = trained(adapted("hf-adalora"))
    rest = trained(adapted("hf-adalora"), whole[2])
    assert len(rest) == len(whole) - 3
    for name, tensor in whole[-1]["tensors"].items():
        assert torch.equal(tensor, rest[-1]["tensors"][name]), name
