"""Several trainings with different seeds, in one adapter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fseft import api
from fseft.adaptation.soup import mean_tensors
from fseft.errors import FseftError
from fseft.model_zoo.adapter_file import read_manifest, read_tensors
from tests.sample_data import equal_tensors

VALUES = st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=4)


@given(VALUES)
def test_the_average_is_between_the_members(values):
    average = mean_tensors([{"w": torch.tensor([value])} for value in values])["w"].item()
    assert min(values) - 1e-4 <= average <= max(values) + 1e-4


def test_members_with_other_tensors_have_no_average():
    assert mean_tensors([{"a": torch.ones(1)}, {"b": torch.ones(1)}]) is None
    assert mean_tensors([{"a": torch.ones(1)}, {"a": torch.ones(2)}]) is None


@pytest.fixture
def adapt(blobs, workspace):
    """Adapts with two seeds."""

    def run(**options):
        settings = {"epochs": 1, "crops_per_step": 1, "seeds": 2, **options}
        output = workspace.root / "run"
        return api.adapt(
            blobs, "tiny", "bias", 1, workspace=workspace, device="cpu", output=output, **settings
        )

    return run


def test_the_adapter_is_the_average_or_the_best_member(adapt):
    adapter = adapt()
    soup = adapter.run.soup
    members = [
        read_tensors(adapter.path.parent / "seeds" / number / "adapter.safetensors")
        for number in "01"
    ]
    candidates = {"0": members[0], "1": members[1], "average": mean_tensors(members)}
    assert soup.dice.keys() == candidates.keys()
    assert soup.dice[soup.chosen] == max(soup.dice.values())
    assert equal_tensors(read_tensors(adapter.path), candidates[soup.chosen])
    assert not equal_tensors(members[0], members[1])
    assert read_manifest(adapter.path).soup == soup
    written = adapter.path.stat().st_mtime_ns
    assert adapt().path.stat().st_mtime_ns == written  # not repeated
    with pytest.raises(FseftError, match="already contains a run"):
        adapt(epochs=2)
