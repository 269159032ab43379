"""Weight deltas start at zero, can be switched off, and merge exactly into any layer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.adapter_layers import (
    BiasShift,
    Bottleneck,
    CentreTapDelta,
    ChannelScale,
    Hypercomplex,
    LowRank,
    Magnitude,
    PrincipalLowRank,
    WeightDelta,
    add_branch,
    add_delta,
)
from fseft.learn.networks.roles import Target

LAYERS = {
    "linear": lambda: nn.Linear(8, 6),
    "conv 1x1x1": lambda: nn.Conv3d(8, 6, 1),
    "conv 3x3x3": lambda: nn.Conv3d(8, 6, 3, padding=1),
    "strided": lambda: nn.Conv3d(8, 6, 3, stride=2, padding=1),
    "dilated": lambda: nn.Conv3d(8, 6, 3, dilation=2, padding=2),
    "grouped": lambda: nn.Conv3d(8, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv3d(8, 8, 3, groups=8, bias=False),
    "reflect-padded": lambda: nn.Conv3d(8, 6, 3, padding=1, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose3d(8, 6, 2, stride=2),
    "transposed, grouped": lambda: nn.ConvTranspose3d(
        8, 6, 3, stride=2, padding=1, output_padding=1, groups=2
    ),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def layer(request):
    torch.manual_seed(0)
    return request.param()


def an_input(layer):
    shape = (2, 8) if isinstance(layer, nn.Linear) else (2, 8, 6, 7, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def as_target(layer):
    return Target("0", layer, "encoder", 0, "conv.spatial")


def outputs(layer):
    """The dimension of the outputs in a layer's weight."""
    return 1 if isinstance(layer, nn.ConvTranspose3d) else 0


KINDS = {
    "lora": lambda layer, generator: [LowRank(layer.weight, 3, 0.5, generator)],
    "pissa": lambda layer, generator: [PrincipalLowRank(layer.weight, 3, 0.5, generator)],
    "dora": lambda layer, generator: [
        LowRank(layer.weight, 3, 0.5, generator),
        Magnitude(layer.weight, outputs(layer)),
    ],
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def with_delta(layer, kind="lora", *, trained=False, seed=0):
    """A network of one layer with deltas, as if trained."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(layer)
    names = [add_delta(as_target(layer), delta) for delta in KINDS[kind](layer, generator)]
    adapted = AdaptedNetwork(network, learning_rate=1e-3)
    network.requires_grad_(False)
    adapted.unfreeze(names)
    adapted.snapshot_base_weights()
    if trained:
        for _, parameter in adapted.trainable_parameters():
            parameter.data += torch.randn(parameter.shape, generator=generator)
    return adapted


def test_a_fresh_delta_changes_no_bit_of_the_output(layer, kind):
    x = an_input(layer)
    base = layer(x)
    assert torch.equal(with_delta(layer, kind).network(x), base)


def test_a_trained_delta_changes_the_output(layer, kind):
    x = an_input(layer)
    base = layer(x)
    assert not torch.allclose(with_delta(layer, kind, trained=True).network(x), base, atol=1e-2)


def test_merging_keeps_the_function_and_the_names_of_the_base(layer, kind):
    x, names = an_input(layer), set(layer.state_dict())
    adapted = with_delta(layer, kind, trained=True)
    unmerged = adapted.network(x)
    merged = adapted.merge()
    assert torch.allclose(merged(x), unmerged, atol=1e-5)
    assert set(merged[0].state_dict()) == names
    assert not any(isinstance(module, WeightDelta) for module in merged.modules())


def test_merging_a_copy_leaves_the_network_as_it_is(layer, kind):
    x = an_input(layer)
    adapted = with_delta(layer, kind, trained=True)
    on = adapted.network(x)
    copy.deepcopy(adapted).merge()
    assert torch.equal(adapted.network(x), on)


def test_switched_off_is_the_base_bit_for_bit_and_ends_with_the_context(layer, kind):
    x = an_input(layer)
    base = layer(x)
    adapted = with_delta(layer, kind, trained=True)
    on = adapted.network(x)
    with adapted.disabled():
        assert torch.equal(adapted.network(x), base)
    assert torch.equal(adapted.network(x), on)


def test_the_product_has_the_rank_and_the_scale_of_the_paper():
    weight = torch.zeros(10, 4, 3, 3, 3)
    delta = LowRank(weight, 2, 0.25, torch.Generator().manual_seed(0))
    nn.init.normal_(delta.b)
    matrix = delta.delta(weight).flatten(1)
    assert torch.linalg.matrix_rank(matrix) == 2
    assert torch.allclose(matrix, 0.25 * delta.b @ delta.a)


def test_the_principal_start_is_the_best_approximation_of_its_rank(layer):
    matrix = layer.weight.detach().flatten(1)
    delta = PrincipalLowRank(layer.weight, 3, 0.5, torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(matrix)
    rest = matrix - 0.5 * delta.b @ delta.a
    assert torch.allclose(torch.linalg.svdvals(rest)[: len(values) - 3], values[3:], atol=1e-5)


def test_a_principal_start_loads_on_another_machine(layer):
    """There, the singular vectors may have other signs."""
    x = an_input(layer)
    saved = with_delta(copy.deepcopy(layer), "pissa", trained=True)
    loaded = with_delta(layer, "pissa")
    with torch.no_grad():
        for name, tensor in [*loaded.network.named_buffers(), *loaded.trainable_parameters()]:
            tensor.neg_() if name.endswith(("a", "a0")) else tensor.zero_()
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded.network(x), saved.network(x))


def test_magnitudes_are_the_norms_of_the_outputs_whatever_the_direction():
    weight = torch.randn((4, 6, 3, 3, 3), generator=torch.Generator().manual_seed(0))
    magnitude = Magnitude(weight, 0)
    other = 7 * torch.randn((4, 6, 3, 3, 3), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        magnitude(other).flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1)
    )
    assert torch.equal(Magnitude(torch.zeros(4, 6), 0)(torch.zeros(4, 6)), torch.zeros(4, 6))


def test_a_layer_smaller_than_the_rank_has_its_full_rank():
    delta = LowRank(torch.zeros(10, 1, 1, 1, 1), 3, 1.0, torch.Generator().manual_seed(0))
    assert (delta.a.shape, delta.b.shape) == ((1, 1), (10, 1))


def test_the_same_seed_gives_the_same_start_and_another_seed_another():
    def drawn(seed):
        return with_delta(nn.Linear(8, 6), seed=seed).state_dict()["0.parametrizations.weight.0.a"]

    assert torch.equal(drawn(4), drawn(4))
    assert not torch.equal(drawn(4), drawn(5))


def test_switching_off_can_be_nested():
    layer = nn.Linear(8, 6)
    x = an_input(layer)
    base = layer(x)
    adapted = with_delta(layer, trained=True)
    on = adapted.network(x)
    with adapted.disabled():
        with adapted.disabled():
            assert torch.equal(adapted.network(x), base)
        assert torch.equal(adapted.network(x), base)
    assert torch.equal(adapted.network(x), on)


def test_switching_off_ends_also_with_an_error():
    layer = nn.Linear(8, 6)
    x = an_input(layer)
    adapted = with_delta(layer, trained=True)
    on = adapted.network(x)
    with pytest.raises(KeyError), adapted.disabled():
        raise KeyError
    assert torch.equal(adapted.network(x), on)


def test_switching_off_brings_back_base_weights_that_are_trained_too():
    layer = nn.Linear(8, 6)
    x = an_input(layer)
    base = layer(x)
    adapted = with_delta(layer, trained=True)
    adapted.unfreeze(["0"])
    adapted.snapshot_base_weights()
    with torch.no_grad():
        for _, parameter in adapted.trainable_parameters():
            parameter.add_(1)
    on = adapted.network(x)
    with adapted.disabled():
        assert torch.equal(adapted.network(x), base)
    assert torch.equal(adapted.network(x), on)


CONVOLUTIONS = ("conv 3x3x3", "strided", "dilated")


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_centre_tap_delta_equals_a_parallel_pointwise_convolution(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    delta = CentreTapDelta(layer.weight)
    nn.init.normal_(delta.point)
    x = an_input(layer)
    point = delta.point[..., None, None, None]
    expected = layer(x) + nn.functional.conv3d(x, point, stride=layer.stride)
    add_delta(as_target(layer), delta)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "dim"), [("linear", 0), ("conv 3x3x3", 0), ("strided", 0), ("transposed", 1)]
)
def test_scale_and_shift_of_a_layer_are_those_of_its_output(name, dim):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    scale, shift = ChannelScale(layer.weight, dim), BiasShift(layer.bias)
    nn.init.normal_(scale.s)
    nn.init.normal_(shift.shift)
    x = an_input(layer)
    shape = (1, -1) if isinstance(layer, nn.Linear) else (1, -1, 1, 1, 1)
    bias = layer.bias.view(shape)
    expected = (layer(x) - bias) * (1 + scale.s).view(shape) + bias + shift.shift.view(shape)
    add_delta(as_target(layer), scale)
    add_delta(as_target(layer), shift, "bias")
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_a_scale_of_inputs_is_one_of_the_input():
    torch.manual_seed(0)
    layer = LAYERS["conv 3x3x3"]()
    scale = ChannelScale(layer.weight, 1, first=2)
    nn.init.normal_(scale.s)
    x = an_input(layer)
    factors = torch.cat([torch.ones(2), 1 + scale.s]).view(1, -1, 1, 1, 1)
    expected = layer(x * factors)
    add_delta(as_target(layer), scale)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("residual", [True, False])
def test_a_hypercomplex_map_mixes_the_outputs_of_a_layer(residual):
    torch.manual_seed(0)
    layer = nn.Linear(5, 8)
    mixing = Hypercomplex(8, 2, torch.Generator().manual_seed(0), residual=residual)
    nn.init.normal_(mixing.b)
    matrix = sum(torch.kron(a, b) for a, b in zip(mixing.a, mixing.b, strict=True))
    x = torch.randn(3, 5)
    expected = layer(x) @ matrix.T + residual * layer(x)
    add_delta(as_target(layer), mixing)
    add_delta(as_target(layer), mixing, "bias")
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_a_hypercomplex_map_starts_at_nothing_or_at_random():
    def started(residual):
        return Hypercomplex(8, 2, torch.Generator().manual_seed(0), residual=residual)

    weight = torch.ones(8, 5)
    assert torch.equal(started(residual=True)(weight), weight)
    assert not torch.allclose(started(residual=False)(weight), weight)


def test_a_module_may_have_several_branches_whose_outputs_add_up():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    x = torch.randn(3, 4)
    base = layer(x)
    branches = [Bottleneck(4, rank, 1.0, torch.Generator().manual_seed(rank)) for rank in (1, 2)]
    assert [add_branch(as_target(layer), branch) for branch in branches] == [
        "0.branch",
        "0.branch1",
    ]
    assert torch.equal(layer(x), base)
    for branch in branches:
        nn.init.normal_(branch.up.weight)
    torch.testing.assert_close(copy.deepcopy(layer)(x), base + branches[0](x) + branches[1](x))
    branches[0].enabled = False
    torch.testing.assert_close(layer(x), base + branches[1](x))
