"""Trained parameters of the built-in methods; `test_matrix.py` checks their contract."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from fseft.builtin.architectures.resunet import ResUNet
from fseft.builtin.architectures.swinunetr import SwinUNETR
from fseft.builtin.methods.full import Full
from fseft.builtin.methods.lora import ROLES, LoRAConfig
from fseft.cli.parsing import parse_settings
from fseft.errors import FseftError
from fseft.experiment.settings import split_settings
from fseft.learn.adapters.adapter_layers import CentreTapDelta, add_delta
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, count_parameters
from fseft.learn.networks.roles import Target
from fseft.learn.training_loop import make_training_state
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS

ARCHITECTURE = ResUNet()
SWIN = SwinUNETR()
TINY = {"channels": (4, 8), "features": 4}
TRANSFORMERS_ONLY = {"adaptformer", "compacter"}


@pytest.fixture
def x():
    return torch.randn((1, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0))


def a_network():
    return build_network(ARCHITECTURE, in_channels=1, out_channels=3, hparams=TINY, seed=0)


def method(name, **config):
    return registry().create("method", name, registry().method(name).config(**config))


def applied(name, config=None, decoder="frozen", *, seed=1):
    return adapt_network(
        ARCHITECTURE, a_network(), method(name, **(config or {})), decoder=decoder, seed=seed
    )


@torch.no_grad()
def output(network, x):
    return network.eval()(x)


def base_weights(adapted):
    """The network's tensors under the names that they had before deltas came."""
    names = {
        n.replace("parametrizations.weight.original", "weight"): p
        for n, p in adapted.network.named_parameters()
    }
    return {name: names[name] for name, _ in a_network().named_parameters()}


def test_zero_shot_trains_nothing_but_saves_the_head():
    adapted = applied("zero-shot")
    assert adapted.trainable_parameters() == []
    assert set(adapted.state_dict()) == {"head.weight", "head.bias"}
    assert count_parameters(adapted.network, trainable=True) == 0


def test_a_linear_probe_trains_the_head_and_nothing_else():
    assert {name for name, _ in applied("linear-probe").trainable_parameters()} == {
        "head.weight",
        "head.bias",
    }


@pytest.mark.parametrize("name", ["full", "scratch"])
def test_full_training_trains_every_weight(name):
    adapted = applied(name)
    assert len(adapted.trainable_parameters()) == len(list(a_network().parameters()))
    assert adapted.train_mode


def test_a_low_rank_decoder_is_trained_by_a_tenth_of_its_parameters_and_starts_as_it_was(
    swinunetr, x
):
    targets = [target for target in SWIN.targets(swinunetr) if target.part == "decoder"]
    whole = sum(p.numel() for target in targets for p in target.module.parameters())
    adapted = adapt_network(SWIN, swinunetr, method("linear-probe"), decoder="low-rank", seed=0)
    head = count_parameters(SWIN.head(swinunetr))
    assert 0 < sum(p.numel() for _, p in adapted.trainable_parameters()) - head < 0.1 * whole
    adapted.merge()
    assert torch.equal(
        output(applied("lora", decoder="low-rank").network, x), output(a_network(), x)
    )


def test_a_new_decoder_differs_from_the_pre_trained_one_and_the_encoder_stays():
    old, new = a_network(), applied("lora", decoder="new")
    targets = {target.name: target for target in ARCHITECTURE.targets(a_network())}
    changed = {
        n.rpartition(".")[0]
        for n, p in base_weights(new).items()
        if not torch.equal(p, old.get_parameter(n))
    }
    assert changed
    assert {targets[name].part for name in changed} == {"decoder"}


# --- LoRA ----------------------------------------------------------------------------------------


def added(adapted):
    return {n: p for n, p in adapted.trainable_parameters() if "parametrizations" in n}


@pytest.mark.parametrize("rank", [1, 3])
def test_lora_trains_as_many_parameters_as_its_selection_implies(rank):
    network = a_network()
    chosen = method("lora", rank=rank).select(ARCHITECTURE, network)
    shapes = [target.module.weight.shape for target in chosen]
    expected = sum(rank * (shape[0] + shape[1:].numel()) for shape in shapes) + count_parameters(
        network.head
    )
    assert count_parameters(applied("lora", {"rank": rank}).network, trainable=True) == expected


@pytest.mark.parametrize(
    ("config", "scale"),
    [({}, 2.0), ({"rank": 4, "alpha": 2.0}, 0.5), ({"rslora": True, "rank": 4}, 8.0)],
)
def test_lora_scales_by_alpha_over_the_rank_or_its_root(config, scale):
    adapted = applied("lora", config)
    assert {m.scale for m in adapted.network.modules() if hasattr(m, "scale")} == {scale}
    assert max(p.shape[0] for n, p in added(adapted).items() if n.endswith(".a")) == config.get(
        "rank", 8
    )


def learning_rates(adapted, rate):
    """Return the learning rate of each trained parameter, by name."""
    names = {id(parameter): name for name, parameter in adapted.trainable_parameters()}
    groups = adapted.param_groups(rate)
    return {names[id(p)]: group["lr"] for group in groups for p in group["params"]}


def test_lora_plus_trains_b_at_another_rate():
    rates = learning_rates(applied("lora", {"lora_plus_ratio": 16.0}), 0.01)
    factors = {"a": 0.01, "b": 0.16}
    for name, rate in rates.items():
        expected = 0.1 if name.startswith("head") else factors[name.rpartition(".")[2]]
        assert rate == pytest.approx(expected), name


def test_full_trains_small_networks_at_a_higher_rate(monkeypatch):
    assert applied("full").learning_rate == Full.learning_rate_if_small > Full.learning_rate
    assert applied("scratch").learning_rate == 3e-3
    monkeypatch.setattr("fseft.learn.networks.backbone.SMALL_NETWORK", 10)
    assert applied("full").learning_rate == Full.learning_rate


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"parts": ("decoder",)}, {"decoder"}),
        ({"parts": ("encoder",), "stages": (0,)}, {"encoder"}),
    ],
)
def test_lora_adapts_the_selected_layers_only(config, part):
    chosen = method("lora", **config).select(ARCHITECTURE, a_network())
    assert {target.part for target in chosen} == part
    assert {target.role for target in chosen} <= set(ROLES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"parts": ("head",)}, "'lora' requires layers in head"),
        ({"stages": (9,)}, "'lora' requires layers in encoder or bottleneck at stage 9"),
        ({"roles": ("attn.qkv",)}, "'lora' requires attn.qkv layers in encoder or bottleneck"),
    ],
)
def test_lora_says_what_is_missing(config, message):
    with pytest.raises(FseftError, match=message):
        method("lora", **config).select(ARCHITECTURE, a_network())


@pytest.mark.parametrize(("channels", "chosen"), [(1, False), (2, True)])
def test_lora_leaves_out_what_is_nothing_but_a_scale_before_a_norm(channels, chosen):
    network = build_network(
        SWIN,
        in_channels=channels,
        out_channels=3,
        hparams=TINY_NETWORKS["swinunetr"].hparams,
        seed=0,
    )
    names = {target.name for target in method("lora").select(SWIN, network)}
    assert ("encoder1.layer.conv3.conv" in names) is chosen
    assert "encoder1.layer.conv1.conv" in names


def test_lora_says_which_rank_is_the_largest():
    with pytest.raises(
        FseftError, match=r"rank is 99, and body\.model\S*, the largest .* has 8. Set rank to 8"
    ):
        applied("lora", {"rank": 99})


def test_dora_has_a_magnitude_wherever_no_norm_takes_it_away():
    network = a_network()
    chosen = method("lora", parts=("encoder", "decoder")).select(ARCHITECTURE, network)
    adapted = applied("lora", {"dora": True, "parts": ("encoder", "decoder")})
    magnitudes = {
        n.removesuffix(".parametrizations.weight.1.m") for n in added(adapted) if n.endswith("m")
    }
    assert magnitudes == {target.name for target in chosen if not target.followed_by_norm}
    assert magnitudes


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"alpha": -1}, {"parts": ("brain",)}, {"roles": ("conv",)}, {"rnk": 3}]
)
def test_lora_refuses_settings_that_mean_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LoRAConfig(**wrong)


# --- parity by parameter count -------------------------------------------------------------------

# Of SwinUNETR-48 with one output class, with its head. Columns: method, settings in addition to the
# preset, learning rate, decoder, number of trained parameters.
PUBLISHED = [
    ("linear-probe", (), 1e-2, "frozen", 49),
    ("spatial-adapter", ("kernel_size=1",), 1e-4, "frozen", 4_657),
    ("spatial-adapter", (), 1e-4, "frozen", 124_465),
    ("affine", (), 1e-2, "frozen", 17_329),
    ("bias", (), 1e-2, "frozen", 210_739),
    ("adaptformer", (), 1e-2, "frozen", 47_697),
    ("compacter", (), 1e-2, "frozen", 217_073),
    ("lora", (), 1e-3, "frozen", 69_169),
    ("full", (), 1e-4, "frozen", 62_186_659),
    ("linear-probe", (), 1e-4, "fine-tuned", 19_597_873),
    ("affine", (), 1e-4, "fine-tuned", 19_615_153),
    ("bias", (), 1e-4, "fine-tuned", 19_808_563),
    ("adaptformer", (), 1e-4, "fine-tuned", 19_645_521),
    ("compacter", (), 1e-4, "fine-tuned", 19_814_897),
    ("lora", (), 1e-4, "fine-tuned", 19_666_993),
    ("decoder-only", (), 1e-4, "frozen", 19_597_873),
]


@pytest.fixture(scope="module")
def swinunetr():
    return build_network(SWIN, in_channels=1, out_channels=1, hparams={}, seed=0)


@pytest.mark.parametrize(
    ("name", "settings", "rate", "decoder", "count"),
    PUBLISHED,
    ids=[f"{n}-{c}" for n, *_, c in PUBLISHED],
)
def test_the_preset_reference_trains_as_many_parameters_as_published_at_one_rate(
    name, settings, rate, decoder, count, swinunetr
):
    spec = registry().method(name)
    given = parse_settings("--set", ["preset=reference", *settings])
    config, recipe = split_settings(spec, given, decoder)
    network, chosen = deepcopy(swinunetr), registry().create("method", name, config)
    adapted = adapt_network(SWIN, network, chosen, decoder=decoder, seed=0)
    assert sum(p.numel() for _, p in adapted.trainable_parameters()) == count
    assert {
        group["base"] for group in make_training_state(adapted, recipe).optimizer.param_groups
    } == {rate}


# --- what only transformers have -----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TRANSFORMERS_ONLY))
def test_a_method_for_transformers_rejects_a_convolutional_network(name):
    with pytest.raises(
        FseftError, match=f"'{name}' requires transformer blocks, which this network lacks"
    ):
        method(name).select(ARCHITECTURE, a_network())


def test_a_compacter_says_which_width_its_terms_do_not_divide(swinunetr):
    with pytest.raises(
        FseftError, match=r"terms is 5, which does not divide the width 48 of swinViT\.layers1"
    ):
        adapt_network(
            SWIN, deepcopy(swinunetr), method("compacter", terms=5), decoder="frozen", seed=1
        )


def test_a_cnn_adapter_is_added_to_kernels_with_a_middle_at_the_voxel_alone():
    fits = [
        nn.Conv3d(4, 8, 3, padding=1),
        nn.Conv3d(4, 8, 3, stride=2, padding=2, dilation=2),
        nn.Conv3d(4, 8, (1, 3, 5), padding="same"),
    ]
    others = [nn.Conv3d(4, 8, 2, stride=2), nn.Conv3d(4, 8, 3), nn.Conv3d(4, 8, 4, padding="same")]
    assert [CentreTapDelta.fits(convolution) for convolution in (*fits, *others)] == [True] * 3 + [
        False
    ] * 3
    x = torch.randn(1, 4, 9, 9, 9)
    for convolution in fits:
        plain, delta = convolution(x), CentreTapDelta(convolution.weight)
        torch.nn.init.normal_(delta.point)
        add_delta(Target("layer", convolution, "encoder", 0, "conv.spatial"), delta)
        point = delta.point[..., None, None, None]
        parallel = torch.nn.functional.conv3d(x, point, stride=convolution.stride)
        torch.testing.assert_close(convolution(x), plain + parallel, atol=1e-5, rtol=1e-5)


def test_ia3_scales_keys_and_values_with_their_bias():
    network = build_network(
        SWIN, in_channels=1, out_channels=3, hparams=TINY_NETWORKS["swinunetr"].hparams, seed=0
    )
    names = {t.name for t in SWIN.targets(network) if t.role == "attn.qkv"}
    layers = [network.get_submodule(name) for name in names]
    starts = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers]
    adapt_network(SWIN, network, method("ia3"), decoder="frozen", seed=1)
    for layer, (weight, bias) in zip(layers, starts, strict=True):
        layer.parametrizations.weight[0].s.data.fill_(1.0)
        third = len(bias) // 3
        assert torch.equal(layer.bias[:third], bias[:third])
        assert torch.equal(layer.bias[third:], 2 * bias[third:])
        assert torch.equal(layer.weight[third:], 2 * weight[third:])


@pytest.fixture
def tiny_swinunetr():
    hparams = TINY_NETWORKS["swinunetr"].hparams
    return build_network(SWIN, in_channels=1, out_channels=3, hparams=hparams, seed=0)


def adapt_qkv(network, init):
    """Apply LoRA to the fused projections; return the adapted network and the name of the first."""
    name = next(target.name for target in SWIN.targets(network) if target.role == "attn.qkv")
    chosen = method("lora", rank=2, lora_plus_ratio=16, roles=("attn.qkv",), init=init)
    return adapt_network(SWIN, network, chosen, decoder="frozen", seed=1), name


@pytest.mark.parametrize("init", ["zero", "pissa"])
def test_queries_keys_and_values_have_separate_low_rank_deltas(init, tiny_swinunetr):
    original = deepcopy(tiny_swinunetr)
    _, name = adapt_qkv(tiny_swinunetr, init)
    layer, weight = tiny_swinunetr.get_submodule(name), original.get_submodule(name).weight
    torch.testing.assert_close(layer.weight, weight)
    layer.parametrizations.weight[0].parts[1].b.data += 1.0
    queries, keys, values = (layer.weight - weight).chunk(3)
    assert torch.linalg.matrix_rank(keys, rtol=1e-4) in (1, 2)
    for unchanged in (queries, values):
        torch.testing.assert_close(unchanged, torch.zeros_like(unchanged))


@pytest.mark.parametrize("init", ["zero", "pissa"])
def test_lora_plus_applies_to_separate_deltas(init, tiny_swinunetr):
    adapted, _ = adapt_qkv(tiny_swinunetr, init)
    rates = learning_rates(adapted, 1.0)
    deltas = {name.rpartition(".")[2]: rate for name, rate in rates.items() if ".parts." in name}
    assert deltas == {"a": 1.0, "b": 16.0}
