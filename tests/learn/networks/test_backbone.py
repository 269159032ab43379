"""Building networks from validated hyper-parameters, and loading weights completely."""

from __future__ import annotations

import pytest
import torch

from fseft.errors import FseftError
from fseft.learn.networks import backbone

TINY = {"channels": [4, 8], "features": 4}


def a_network(seed=0, out=3):
    architecture = backbone.get_architecture("resunet")
    return backbone.build_network(
        architecture, in_channels=1, out_channels=out, hparams=TINY, seed=seed
    )


def equal(a, b):
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_weights_depend_on_the_seed_alone():
    first = a_network()
    torch.rand(3)
    assert equal(first, a_network())
    assert not equal(first, a_network(seed=1))


def test_building_does_not_change_the_global_generator():
    state = torch.get_rng_state()
    a_network()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_architecture_is_rejected_with_a_suggestion():
    with pytest.raises(FseftError, match=r"resnet.*Did you mean resunet"):
        backbone.get_architecture("resnet")


def test_weights_are_loaded_and_half_precision_becomes_full():
    source, target = a_network(seed=1), a_network(seed=2)
    backbone.load_weights(target, {n: t.half() for n, t in source.state_dict().items()}, source="w")
    for name, tensor in target.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, source.state_dict()[name].half().float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("head.bias"),
            r"1 tensors missing, 0 unexpected, 0 of another shape \(first: head.bias\)",
        ),
        (
            lambda t: t.update(extra=torch.zeros(1)),
            r"0 tensors missing, 1 unexpected.*first: extra",
        ),
        (
            lambda t: t.update({"head.bias": torch.zeros(9)}),
            r"1 of another shape \(first: head.bias\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_rejected_and_change_nothing(change, message):
    network, tensors = a_network(seed=0), dict(a_network(seed=1).state_dict())
    change(tensors)
    with pytest.raises(FseftError, match=message):
        backbone.load_weights(network, tensors, source="weights.safetensors")
    assert equal(network, a_network(seed=0))


def test_parameters_are_counted():
    network = a_network()
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    assert backbone.count_parameters(network, trainable=True) == 3 * 4 + 3
    assert backbone.count_parameters(network) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        ({"channel": [4, 8]}, "no hyper-parameter 'channel'. Did you mean channels"),
        ({"channels": 8}, r"does not accept channels=8: must be a list.*width of each level"),
        ({"norm": "layer"}, r"does not accept norm='layer': .*\(default: instance\)"),
        ({"features": 0}, "must be at least 1"),
    ],
)
def test_a_wrong_hyperparameter_is_rejected_with_its_description(hparams, message):
    architecture = backbone.get_architecture("resunet")
    with pytest.raises(FseftError, match=message):
        backbone.build_network(architecture, in_channels=1, out_channels=2, hparams=hparams, seed=0)


def test_hyperparameters_are_validated_to_the_types_of_the_config():
    config = backbone.validate_hparams(
        backbone.get_architecture("dynunet"), {"strides": [[1, 2, 2], 2]}
    )
    assert config.model_dump(exclude_unset=True) == {"strides": ((1, 2, 2), 2)}
    assert config.model_dump(mode="json", exclude_unset=True) == {"strides": [[1, 2, 2], 2]}
