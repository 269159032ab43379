"""Every method on every architecture keeps the contract that authors of plugins are given."""

from __future__ import annotations

import pytest

from fseft.registry import registry
from fseft.testing import TOYS, method_checks

BIASES_BEFORE_A_NORM = {"gives_every_tensor_a_gradient": "trains the biases that a norm takes away as well"}
LAST_BIAS = {"gives_every_tensor_a_gradient": "a residual is added before the norm that takes the last bias away"}
WEIGHTS_WITHOUT_A_ROLE = {"trains_where_it_selects": "activations have weights too, and no role"}
KEEPS_A_BRANCH = {"merges_to_the_names_of_the_base": "a branch with a nonlinearity stays a branch"}
XFAIL = {
    ("adaptformer", "swinunetr"): KEEPS_A_BRANCH,
    ("bias", "resunet"): LAST_BIAS,
    ("decoder-only", "resunet"): BIASES_BEFORE_A_NORM,
    ("full", "resunet"): {**BIASES_BEFORE_A_NORM, **WEIGHTS_WITHOUT_A_ROLE},
    ("scratch", "resunet"): {**BIASES_BEFORE_A_NORM, **WEIGHTS_WITHOUT_A_ROLE},
    ("spatial-adapter", "resunet"): KEEPS_A_BRANCH,
    ("spatial-adapter", "swinunetr"): KEEPS_A_BRANCH,
    ("ssf", "resunet"): LAST_BIAS,
}


NEW = "the decoder starts anew"
BESIDE = {
    "fine-tuned": BIASES_BEFORE_A_NORM,
    "new": {**BIASES_BEFORE_A_NORM, "starts_as_the_base": NEW, "keeps_the_base": NEW, "can_be_switched_off": NEW},
    "low-rank": {},
}
ALL = ("encoder", "bottleneck", "decoder")
SETTINGS = [
    {"parts": ALL},
    {"rank": 2, "rslora": True, "ratio": 16.0},
    {"dora": True, "parts": ALL},
    {"init": "pissa"},
    {"init": "pissa", "dora": True},
]
RESUNET = {"resunet": TOYS["resunet"]}


def matrix():
    for name in registry().names("method"):
        for architecture, toy in TOYS.items():
            yield from method_checks(name, toys={architecture: toy}, xfail=XFAIL.get((name, architecture)))


def decoders():
    for name in ("linear-probe", "lora", "ssf", "full"):
        for decoder, reasons in BESIDE.items():
            xfail = {**XFAIL.get((name, "resunet"), {}), **reasons}
            yield from method_checks(name, decoder=decoder, toys=RESUNET, xfail=xfail)


def settings():
    for config in SETTINGS:
        yield from method_checks("lora", config=config, toys=RESUNET)
    for config, decoder in ((SETTINGS[0], "low-rank"), (SETTINGS[-1], "fine-tuned")):
        yield from method_checks("lora", config=config, decoder=decoder, toys=RESUNET, xfail=BESIDE[decoder])


@pytest.mark.parametrize("check", [*matrix(), *decoders(), *settings()])
def test_a_method_keeps_the_contract(check):
    check()


def test_there_is_a_toy_of_every_architecture():
    assert TOYS.keys() == set(registry().names("architecture"))


def test_an_expected_failure_of_no_check_is_refused():
    with pytest.raises(ValueError, match="no checks \\['merge'\\]"):
        method_checks("lora", xfail={"merge": "of another name"})
