"""Networks are built by seed alone, and weights fit wholly or not at all."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from fseft.errors import FseftError
from fseft.learn.networks import backbone

TINY = {"channels": [4, 8], "features": 4}


def a_network(seed=0, out=3):
    made = backbone.get_architecture("resunet")
    return backbone.build_network(made, in_channels=1, out_channels=out, hparams=TINY, seed=seed)


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


def test_building_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    a_network()
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_architecture_names_the_nearest():
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
            r"1 tensors missing, 0 unused, 0 of another shape \(first: head.bias\)",
        ),
        (lambda t: t.update(extra=torch.zeros(1)), r"0 tensors missing, 1 unused.*first: extra"),
        (
            lambda t: t.update({"head.bias": torch.zeros(9)}),
            r"1 of another shape \(first: head.bias\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(change, message):
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


class Base:
    """An architecture from which another one inherits most."""

    def build(
        self, *, in_channels: int, out_channels: int, width: int, blocks: tuple[int, ...] = (1, 2)
    ):
        """Build.

        Args:
            in_channels: Of the image.
            out_channels: Of the logits.
            width: Of the first layer,
                doubled below.
            blocks: In each stage.
        """


class Derived(Base):
    """Hands most settings on."""

    def build(self, norm: Literal["batch", "instance"] = "batch", **more: Any):
        """Build.

        Args:
            norm: Of all layers.
            more: What the base takes.
        """


class Open:
    """Takes whatever comes."""

    def build(self, **anything):
        """Build."""


def test_the_settings_of_a_network_are_told_with_type_default_and_description():
    found = backbone.hyperparameters(Derived())
    assert list(found) == ["norm", "width", "blocks"]
    assert {name: (one.default, one.description) for name, one in found.items()} == {
        "norm": ("batch", "Of all layers."),
        "width": ("required", "Of the first layer, doubled below."),
        "blocks": ((1, 2), "In each stage."),
    }
    assert (found["norm"].type, found["width"].type, found["blocks"].type) == (
        Literal["batch", "instance"],
        int,
        tuple[int, ...],
    )
    assert list(backbone.hyperparameters(Open())) == [backbone.OTHERS]
