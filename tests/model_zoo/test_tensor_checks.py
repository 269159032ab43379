"""Weights of the right names and shapes, but of other content, are refused in one line."""

from __future__ import annotations

import pytest
import torch

from fseft.errors import FseftError
from fseft.model_zoo.tensor_checks import check_tensors

NETWORK = {
    "conv.weight": torch.zeros(4, 3),
    "conv.bias": torch.zeros(4),
    "out.weight": torch.zeros(2, 4),
    "steps": torch.tensor(0),
}


def tensors(**changed):
    given = {name: torch.randn(tensor.shape) for name, tensor in NETWORK.items()}
    return {**given, "steps": torch.tensor(7), **changed}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_usual_precisions_pass_and_biases_may_be_zero(dtype, caplog):
    weights = {name: tensor.to(dtype) for name, tensor in tensors().items() if name != "steps"}
    check_tensors({**weights, "conv.bias": torch.zeros(4, dtype=dtype)}, NETWORK)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(4, 3, dtype=torch.int8), "conv.weight is int8, the network has floating-point"),
        (torch.ones(4, 3, dtype=torch.bool), "conv.weight is bool"),
        (torch.ones(4, 3, dtype=torch.complex64), "conv.weight is complex64"),
        (torch.ones(4, 3).to(torch.float8_e4m3fn), "conv.weight is float8_e4m3fn"),
        (torch.eye(4, 3).to_sparse(), "conv.weight is sparse float32"),
        (torch.full((4, 3), torch.nan), "1 tensor with NaN or infinity in it"),
    ],
)
def test_a_tensor_that_is_not_a_trained_weight_is_refused(tensor, words):
    with pytest.raises(FseftError, match=words):
        check_tensors(tensors(**{"conv.weight": tensor}), NETWORK)


@pytest.mark.parametrize("value", [torch.zeros(1, 1), torch.ones(1, 1)])
def test_constant_weights_are_refused_if_most_are_and_named_otherwise(value, caplog):
    constant = {"conv.weight": value.expand(4, 3), "out.weight": value.expand(2, 4)}
    with pytest.raises(FseftError, match=r"2 of 2 weights are constant \(first conv\.weight\)"):
        check_tensors(tensors(**constant), NETWORK)
    check_tensors(tensors(**{"conv.weight": value.expand(4, 3)}), NETWORK)
    assert caplog.messages == ["1 weight constant, as if not trained (first conv.weight)"]
