"""Every method on every architecture fulfils the contract that plugin authors test.

All checks run on all pairs of a method and an architecture with the layers that it requires, with
default settings and a frozen decoder. The other decoders run with `linear-probe`, which leaves the
decoder to them, on all architectures except `swinunetr`, which takes long, and with methods of
other kinds on `resunet`, as do the settings of `lora`.
"""

from __future__ import annotations

import pytest

from fseft.registry import registry
from fseft.testing import TINY_NETWORKS, method_checks

ALL = ("encoder", "bottleneck", "decoder")
LORA = [
    {"parts": ALL},
    {"rank": 2, "rslora": True, "lora_plus_ratio": 16.0},
    {"dora": True, "parts": ALL},
    {"init": "pissa"},
    {"init": "pissa", "dora": True},
]

# --- expected failures ---------------------------------------------------------------------------

BIAS_BEFORE_A_NORM = {"mednext", "resunet", "suprem-unet", "unet"}
"""The norms cancel biases of convolutions, which methods that train whole layers train too."""
NORM_AFTER_A_RESIDUAL = {"resunet"}
"""The last convolution is added to a residual: its scale has an effect, its bias is cancelled."""
LONE_CHANNEL_BEFORE_A_NORM = {"swinunetr"}
"""A pointwise convolution of a single channel is a scale, which the norm cancels."""

WHOLE_NETWORK = {"full", "scratch"}
WHOLE_LAYERS = {"decoder-only", *WHOLE_NETWORK}
SELECTED_BIASES = {"bias", "ssf"}
BRANCHES = {"adaptformer", "spatial-adapter"}

DEAD_BIASES = {
    "gives_every_tensor_a_gradient": "a norm cancels biases that are trained with their layers"
}
DEAD_WEIGHT = {
    "gives_every_tensor_a_gradient": "a norm cancels a weight that is a single factor per output"
}
DEAD_LAST_BIAS = {"gives_every_tensor_a_gradient": "a norm after a residual cancels the last bias"}
KEEPS_A_BRANCH = {
    "merges_to_the_names_of_the_base": "a branch with a nonlinearity cannot be merged"
}
NEW_DECODER = dict.fromkeys(
    ("starts_as_the_base", "restores_the_base_weights", "can_be_switched_off"),
    "the base has a new decoder",
)


def exceptions(method, architecture, decoder):
    """Return the checks that must fail, with the reasons."""
    reasons = {}
    if method in BRANCHES:
        reasons |= KEEPS_A_BRANCH
    if method in SELECTED_BIASES and architecture in NORM_AFTER_A_RESIDUAL:
        reasons |= DEAD_LAST_BIAS
    if (
        method in WHOLE_LAYERS or decoder in ("fine-tuned", "new")
    ) and architecture in BIAS_BEFORE_A_NORM:
        reasons |= DEAD_BIASES
    if method in WHOLE_NETWORK and architecture in LONE_CHANNEL_BEFORE_A_NORM:
        reasons |= DEAD_WEIGHT
    if decoder == "new":
        reasons |= NEW_DECODER
    return reasons


# --- checks --------------------------------------------------------------------------------------


def checks(method, architectures=tuple(TINY_NETWORKS), decoder="frozen", config=None):
    for architecture in architectures:
        yield from method_checks(
            method,
            config=config,
            decoder=decoder,
            networks={architecture: TINY_NETWORKS[architecture]},
            layers=(),
            xfail=exceptions(method, architecture, decoder),
        )


def matrix():
    for method in registry().names("method"):
        yield from checks(method)


def layers():
    for method in registry().names("method"):
        yield from method_checks(method, networks={})
    for config in LORA:
        yield from method_checks("lora", networks={}, config=config)


def decoders():
    for decoder in ("fine-tuned", "new", "low-rank"):
        yield from checks("linear-probe", sorted(TINY_NETWORKS.keys() - {"swinunetr"}), decoder)
        for method in ("lora", "ssf", "full"):
            yield from checks(method, ["resunet"], decoder)


def settings():
    for config in LORA:
        yield from checks("lora", ["resunet"], config=config)
    yield from checks("lora", ["resunet"], "low-rank", LORA[0])
    yield from checks("lora", ["resunet"], "fine-tuned", LORA[-1])


DEFAULT_METHODS = ("affine", "full", "linear-probe", "lora", "spatial-adapter")
"""Methods of the default run, one of each kind."""


@pytest.mark.parametrize("check", [c for m in DEFAULT_METHODS for c in checks(m, ["resunet"])])
def test_a_method_fulfils_the_contract_on_one_network(check):
    check()


@pytest.mark.full
@pytest.mark.parametrize("check", [*matrix(), *layers(), *decoders(), *settings()])
def test_a_method_fulfils_the_contract_on_every_network(check):
    check()


def test_every_architecture_has_a_tiny_network():
    assert TINY_NETWORKS.keys() == set(registry().names("architecture"))


def test_an_expected_failure_of_no_check_is_refused():
    with pytest.raises(ValueError, match="unknown checks \\['merge'\\]"):
        method_checks("lora", xfail={"merge": "of another name"})
