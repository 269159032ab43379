"""Every built-in method: what it trains, what it saves, and that the saved part brings all back."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch.nn import functional as F

from fseft.builtin.architectures.resunet import ResUNet
from fseft.builtin.architectures.swinunetr import SwinUNETR
from fseft.builtin.methods.lora import ROLES, LoRAConfig
from fseft.documents import Recipe
from fseft.errors import FseftError
from fseft.learn.adaptation import adapt_network
from fseft.learn.backbone import build, count_parameters
from fseft.learn.loop import fit, start
from fseft.registry import registry
from fseft.steps.settings import split_settings

ARCHITECTURE = ResUNet()
SWIN = SwinUNETR()
TINY = {"channels": (4, 8), "features": 4}
TRANSFORMERS_ONLY = {"adaptformer", "compacter"}
METHODS = [name for name in registry().names("method") if name not in TRANSFORMERS_ONLY]
TRAINING = [name for name in METHODS if registry().method(name).trains]
CASES = [
    *[(name, {}, decoder) for name in TRAINING for decoder in ("frozen", "fine-tuned", "new")],
    ("zero-shot", {}, "frozen"),
    *[(name, {}, "low-rank") for name in ("linear-probe", "lora", "full")],
    ("lora", {"parts": ("encoder", "decoder")}, "low-rank"),
    ("lora", {"parts": ("encoder", "bottleneck", "decoder")}, "frozen"),
    ("lora", {"parts": ("encoder", "bottleneck", "decoder")}, "fine-tuned"),
    ("lora", {"rank": 2, "rslora": True, "ratio": 16.0}, "frozen"),
    ("lora", {"dora": True, "parts": ("encoder", "bottleneck", "decoder")}, "frozen"),
    ("lora", {"init": "pissa"}, "frozen"),
    ("lora", {"init": "pissa", "dora": True}, "fine-tuned"),
]
RECIPE = Recipe(epochs=2, learning_rate=0.01, plateau=False)


@pytest.fixture
def x():
    return torch.randn((1, 1, 32, 32, 32), generator=torch.Generator().manual_seed(0))


def a_network():
    return build(ARCHITECTURE, in_channels=1, out_channels=3, hparams=TINY, seed=0)


def method(name, **config):
    return registry().create("method", name, registry().method(name).config(**config))


def applied(name, config=None, decoder="frozen", *, seed=1):
    return adapt_network(ARCHITECTURE, a_network(), method(name, **(config or {})), decoder=decoder, seed=seed)


def train(adapted, x):
    """Two steps."""
    labels = (x[:, 0] > 0).long()
    adapted.network.train(adapted.train_mode)
    fit(start(adapted, RECIPE), lambda _: F.cross_entropy(adapted.network(x), labels), RECIPE, steps_per_epoch=1)
    adapted.network.eval()


@torch.no_grad()
def output(network, x):
    return network.eval()(x)


def base_weights(adapted):
    """The network's tensors under the names that they had before deltas came."""
    names = {n.replace("parametrizations.weight.original", "weight"): p for n, p in adapted.network.named_parameters()}
    return {name: names[name] for name, _ in a_network().named_parameters()}


@pytest.mark.parametrize(("name", "config", "decoder"), CASES)
def test_what_is_saved_brings_the_adapted_network_back(name, config, decoder, x):
    adapted = applied(name, config, decoder)
    if registry().method(name).trains:
        before = output(adapted.network, x)
        train(adapted, x)
        assert not torch.equal(output(adapted.network, x), before)
    fresh = applied(name, config, decoder)
    fresh.load_state_dict(adapted.state_dict())
    assert torch.equal(output(fresh.network, x), output(adapted.network, x))


@pytest.mark.parametrize(("name", "config", "decoder"), CASES)
def test_only_what_is_declared_changes(name, config, decoder, x):
    adapted = applied(name, config, decoder)
    before = {n: p.detach().clone() for n, p in adapted.network.named_parameters()}
    declared = {n for n, _ in adapted.trained()}
    if declared:
        train(adapted, x)
    changed = {n for n, p in adapted.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed <= declared
    assert declared <= set(adapted.state_dict())


@pytest.mark.parametrize(("name", "config", "decoder"), CASES)
def test_switched_off_it_is_the_base_bit_for_bit(name, config, decoder, x):
    adapted = applied(name, config, decoder)
    start_of = output(adapted.network, x)
    if adapted.trained():
        train(adapted, x)
    on = output(adapted.network, x)
    with adapted.disabled():
        assert torch.equal(output(adapted.network, x), start_of)
    assert torch.equal(output(adapted.network, x), on)


def body(name):
    return not name.startswith("head.")


@pytest.mark.parametrize(("name", "config", "decoder"), CASES)
def test_merging_gives_a_plain_network_of_the_same_function(name, config, decoder, x):
    adapted = applied(name, config, decoder)
    if adapted.trained():
        train(adapted, x)
    on = output(adapted.network, x)
    merged = adapted.merge()
    assert {n for n in merged.state_dict() if body(n)} == {n for n in a_network().state_dict() if body(n)}
    assert ("head.weight" in merged.state_dict()) is (name != "spatial-adapter")  # which is a head of its own
    assert torch.allclose(output(merged, x), on, atol=1e-4)


@pytest.mark.parametrize("name", TRAINING)
def test_every_trained_tensor_has_a_gradient_after_two_steps(name, x):
    adapted = applied(name)
    train(adapted, x)
    assert [n for n, p in adapted.trained() if p.grad is None] == []
    if name in ("lora", "ia3", "cnn-adapter"):
        assert [n for n, p in adapted.trained() if "parametrizations" in n and not p.grad.any()] == []


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_start(name):
    first, same = applied(name, decoder="frozen").state_dict(), applied(name, decoder="frozen").state_dict()
    assert all(torch.equal(tensor, same[key]) for key, tensor in first.items())


@pytest.mark.parametrize("name", METHODS)
def test_tensors_of_another_adapter_are_refused(name):
    adapted = applied(name)
    with pytest.raises(FseftError, match=r"does not fit.*tensors differ \(first: .*"):
        adapted.load_state_dict({**adapted.state_dict(), "zzz": torch.zeros(1)})
    bias = "head.classifier.bias" if name == "spatial-adapter" else "head.bias"
    with pytest.raises(FseftError, match=rf"1 tensors differ \(first: {bias}\)"):
        adapted.load_state_dict({**adapted.state_dict(), bias: torch.zeros(9)})


def test_zero_shot_trains_nothing_but_saves_the_head():
    adapted = applied("zero-shot")
    assert adapted.trained() == []
    assert set(adapted.state_dict()) == {"head.weight", "head.bias"}
    assert count_parameters(adapted.network, trainable=True) == 0


def test_a_linear_probe_trains_the_head_and_nothing_else():
    assert {name for name, _ in applied("linear-probe").trained()} == {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["full", "scratch"])
def test_full_training_trains_every_weight(name):
    adapted = applied(name)
    assert len(adapted.trained()) == len(list(a_network().parameters()))
    assert adapted.train_mode


def test_a_low_rank_decoder_is_trained_by_a_tenth_of_its_parameters_and_starts_as_it_was(swinunetr, x):
    targets = [target for target in SWIN.targets(swinunetr) if target.part == "decoder"]
    whole = sum(p.numel() for target in targets for p in target.module.parameters())
    adapted = adapt_network(SWIN, swinunetr, method("linear-probe"), decoder="low-rank", seed=0)
    head = count_parameters(SWIN.head(swinunetr))
    assert 0 < sum(p.numel() for _, p in adapted.trained()) - head < 0.1 * whole
    adapted.merge()
    assert torch.equal(output(applied("lora", decoder="low-rank").network, x), output(a_network(), x))


def test_a_new_decoder_differs_from_the_pre_trained_one_and_the_encoder_stays():
    old, new = a_network(), applied("lora", decoder="new")
    targets = {target.name: target for target in ARCHITECTURE.targets(a_network())}
    changed = {n.rpartition(".")[0] for n, p in base_weights(new).items() if not torch.equal(p, old.get_parameter(n))}
    assert changed
    assert {targets[name].part for name in changed} == {"decoder"}


# --- LoRA ---------------------------------------------------------------------------------------------------


def added(adapted):
    return {n: p for n, p in adapted.trained() if "parametrizations" in n}


@pytest.mark.parametrize("name", [name for name in TRAINING if registry().method(name).needs_model])
def test_a_method_changes_no_bit_of_the_output_before_training(name, x):
    assert torch.equal(output(applied(name).network, x), output(a_network(), x))


def test_lora_leaves_the_base_weights_bit_identical(x):
    adapted = applied("lora")
    train(adapted, x)
    old = a_network()
    other = {n for n, p in base_weights(adapted).items() if not torch.equal(p, old.get_parameter(n))}
    assert other <= {"head.weight", "head.bias"}


@pytest.mark.parametrize("rank", [1, 3])
def test_lora_trains_as_many_parameters_as_its_selection_implies(rank):
    network = a_network()
    chosen = method("lora", rank=rank).select(ARCHITECTURE, network)
    shapes = [target.module.weight.shape for target in chosen]
    expected = sum(rank * (shape[0] + shape[1:].numel()) for shape in shapes) + count_parameters(network.head)
    assert count_parameters(applied("lora", {"rank": rank}).network, trainable=True) == expected


def test_selecting_changes_nothing():
    network = a_network()
    names = [name for name, _ in network.named_parameters()]
    method("lora").select(ARCHITECTURE, network)
    assert [name for name, p in network.named_parameters() if p.requires_grad] == names


@pytest.mark.parametrize(
    ("config", "scale"), [({}, 2.0), ({"rank": 4, "alpha": 2.0}, 0.5), ({"rslora": True, "rank": 4}, 8.0)]
)
def test_lora_scales_by_alpha_over_the_rank_or_its_root(config, scale):
    adapted = applied("lora", config)
    assert {m.scale for m in adapted.network.modules() if hasattr(m, "scale")} == {scale}
    assert max(p.shape[0] for n, p in added(adapted).items() if n.endswith(".a")) == config.get("rank", 8)


def test_lora_plus_gives_b_a_rate_of_its_own():
    adapted = applied("lora", {"ratio": 16.0})
    rates = {id(p): group["lr"] for group in adapted.param_groups(0.01) for p in group["params"]}
    for name, parameter in adapted.trained():
        expected = 0.16 if name.endswith(".b") else 0.1 if name.startswith("head") else 0.01
        assert rates[id(parameter)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "part"),
    [({"parts": ("decoder",)}, {"decoder"}), ({"parts": ("encoder",), "stages": (0,)}, {"encoder"})],
)
def test_lora_goes_where_it_is_told(config, part):
    chosen = method("lora", **config).select(ARCHITECTURE, a_network())
    assert {target.part for target in chosen} == part
    assert {target.role for target in chosen} <= set(ROLES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"parts": ("head",)}, "'lora' needs layers in head, which this architecture"),
        ({"stages": (9,)}, "'lora' needs layers in encoder or bottleneck at stage 9"),
        ({"roles": ("attn.qkv",)}, "'lora' needs attn.qkv layers in encoder or bottleneck"),
    ],
)
def test_lora_says_what_is_missing(config, message):
    with pytest.raises(FseftError, match=message):
        method("lora", **config).select(ARCHITECTURE, a_network())


def test_lora_says_which_rank_is_the_largest():
    with pytest.raises(FseftError, match=r"rank is 99, and body\.model\S*, the largest .* has 8. Set rank to 8"):
        applied("lora", {"rank": 99})


def test_dora_has_a_magnitude_wherever_no_norm_takes_it_away():
    network = a_network()
    chosen = method("lora", parts=("encoder", "decoder")).select(ARCHITECTURE, network)
    adapted = applied("lora", {"dora": True, "parts": ("encoder", "decoder")})
    magnitudes = {n.removesuffix(".parametrizations.weight.1.m") for n in added(adapted) if n.endswith("m")}
    assert magnitudes == {target.name for target in chosen if not target.followed_by_norm}
    assert magnitudes


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": -1}, {"parts": ("brain",)}, {"roles": ("conv",)}, {"rnk": 3}])
def test_lora_refuses_settings_that_mean_nothing(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LoRAConfig(**wrong)


# --- parity by parameter count ------------------------------------------------------------------------------

PUBLISHED = [  # on SwinUNETR-48 with one output class, head included: settings beside the preset, rate, decoder, count
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
    return build(SWIN, in_channels=1, out_channels=1, hparams={}, seed=0)


@pytest.mark.parametrize(
    ("name", "settings", "rate", "decoder", "count"), PUBLISHED, ids=[f"{n}-{c}" for n, *_, c in PUBLISHED]
)
def test_the_preset_reference_trains_as_many_parameters_as_published_at_one_rate(
    name, settings, rate, decoder, count, swinunetr
):
    spec = registry().method(name)
    config, recipe = split_settings(spec, ["preset=reference", *settings], decoder)
    network, chosen = deepcopy(swinunetr), registry().create("method", name, config)
    adapted = adapt_network(SWIN, network, chosen, decoder=decoder, seed=0)
    assert sum(p.numel() for _, p in adapted.trained()) == count
    assert {group["base"] for group in start(adapted, recipe).optimizer.param_groups} == {rate}


# --- what only transformers have --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TRANSFORMERS_ONLY))
def test_a_network_without_transformer_blocks_is_told(name):
    with pytest.raises(FseftError, match=f"'{name}' needs transformer blocks, which this architecture"):
        method(name).select(ARCHITECTURE, a_network())


SMALL = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4}


def a_small_transformer():
    return build(SWIN, in_channels=1, out_channels=3, hparams=SMALL, seed=0)


@pytest.mark.parametrize("name", sorted(TRANSFORMERS_ONLY))
def test_what_transformers_get_starts_at_nothing_learns_is_copied_and_can_be_switched_off(name):
    x = torch.randn((1, 1, 64, 32, 32), generator=torch.Generator().manual_seed(0))
    network = a_small_transformer()
    base = output(network, x)
    adapted = adapt_network(SWIN, network, method(name), decoder="frozen", seed=1)
    assert torch.equal(output(network, x), base)
    train(adapted, x)
    learned = output(network, x)
    assert not torch.equal(learned, base)
    assert all(p.grad is not None and p.grad.any() for n, p in adapted.trained())
    assert torch.equal(output(deepcopy(network), x), learned)
    fresh = a_small_transformer()
    again = adapt_network(SWIN, fresh, method(name), decoder="frozen", seed=1)
    again.load_state_dict(adapted.state_dict())
    assert torch.equal(output(fresh, x), learned)
    with adapted.disabled():
        assert torch.equal(output(network, x), base)


def test_a_compacter_merges_into_the_network_that_it_came_from():
    x = torch.randn((1, 1, 64, 32, 32), generator=torch.Generator().manual_seed(0))
    adapted = adapt_network(SWIN, a_small_transformer(), method("compacter"), decoder="frozen", seed=1)
    train(adapted, x)
    learned = output(adapted.network, x)
    merged = adapted.merge()
    assert merged.state_dict().keys() == a_small_transformer().state_dict().keys()
    assert torch.allclose(output(merged, x), learned, atol=1e-5)


def test_a_compacter_says_which_width_its_terms_do_not_divide():
    with pytest.raises(FseftError, match=r"terms is 5, which does not divide the width 12 of swinViT\.layers1"):
        adapt_network(SWIN, a_small_transformer(), method("compacter", terms=5), decoder="frozen", seed=1)
