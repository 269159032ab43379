"""Every tuner fulfils the contract of all methods, except for known limitations of PEFT."""

from __future__ import annotations

import pytest

from fseft.testing import TINY_NETWORKS, TinyNetwork, method_checks
from fseft_hf_peft.tuners import TUNERS

TOKENS = {"tokens": TinyNetwork({}, (4, 8, 8))}
# SwinUNETR takes minutes.
CONVOLUTIONAL = {name: toy for name, toy in TINY_NETWORKS.items() if name != "swinunetr"}
RESUNET = {"resunet": TINY_NETWORKS["resunet"]}
ALL = ("encoder", "bottleneck", "decoder")

STARTS_CLOSE = {"starts_as_the_base": "PEFT draws both factors of the change at random"}
DEAD_MAGNITUDES = {"gives_every_tensor_a_gradient": "PEFT trains magnitudes that a norm cancels"}
XFAIL = {
    "hf-adamss": {"gives_every_tensor_a_gradient": "PEFT's layer works in single precision only"},
    "hf-lily": {"merges_to_the_names_of_the_base": "the change depends on the input"},
    "hf-osf": {"runs_in_half_precision": "PEFT's gradient hook changes the precision"},
    "hf-unilora": STARTS_CLOSE,
    "hf-vblora": STARTS_CLOSE,
}


def everywhere():
    """Each tuner on the transformer; those with other than linear layers on more networks."""
    for tuner in TUNERS:
        yield from method_checks(tuner.method, networks=TOKENS, xfail=XFAIL.get(tuner.method))
    for method in ("hf-ia3", "hf-ln", "hf-lora"):
        yield from method_checks(method, networks=CONVOLUTIONAL, layers=())
    yield from method_checks("hf-hira", networks=RESUNET, layers=())


def settings():
    """Settings that change the set of layers."""
    for key in ("use_dora", "use_rslora"):
        yield from method_checks("hf-lora", networks=TOKENS, config={key: True})
    yield from method_checks(
        "hf-lora", networks=RESUNET, config={"use_dora": True}, layers=(), xfail=DEAD_MAGNITUDES
    )
    yield from method_checks(
        "hf-lora", networks=RESUNET, config={"parts": ALL}, layers=(), decoder="low-rank"
    )


@pytest.mark.parametrize("check", [*everywhere(), *settings()])
def test_a_tuner_keeps_the_contract(check):
    check()
