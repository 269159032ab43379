"""`fseft adapt`: what a person reads before it takes time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from fseft.adaptation.unlabelled_scans import UnlabelledScans
from fseft.cli.adapt import _AdaptCallbacks
from fseft.schemas import Candidate, Case, Decision, Selection


@pytest.mark.parametrize(
    ("trains", "unknown"), [(True, "new to the model"), (False, "never segmented")]
)
def test_what_each_structure_starts_from_is_shown_before_training(trains, unknown, capsys):
    method = SimpleNamespace(
        name="full", spec=SimpleNamespace(trains=trains), caches_features=False
    )
    spacing = Decision(name="spacing", value="2 mm", reason="the median")
    model = Decision(name="model", value="tiny", reason="the only one installed")
    tried = Candidate(method="full", steps=30, dice={"a": 0.5})
    choice = Selection(key="", method="full", reason="the default", candidates=(tried,))
    config = SimpleNamespace(
        support=SimpleNamespace(cases=("a",)),
        labels={"lkidney": 1, "tumour": 2},
        matched={"lkidney": "left kidney"},
        continued={},
        request=SimpleNamespace(
            method=method,
            minutes=None,
            k=5,
            seeds=1,
            decisions=(model,),
            selection=choice,
            origin=None,
        ),
        training=SimpleNamespace(epochs=100),
        plan=SimpleNamespace(decisions=(spacing,)),
        labelled_in={},
        partly_annotated={"a": "7 of 34 slices annotated"},
        unlabelled=UnlabelledScans(Path("scans"), (Case(name="b", images=(Path("b.nii.gz"),)),)),
    )
    _AdaptCallbacks(print, show_config=True).on_start(config, 1)
    shown = capsys.readouterr().out
    assert "spacing: 2 mm (the median)" in shown
    assert ("training length: 500 steps, 100 epochs" in shown) == trains
    assert "scans without labels: 1 of scans" in shown
    assert "annotated: a (7 of 34 slices annotated)" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert "model: tiny (the only one installed)" in shown
    assert "method: full (the default)" in shown
    assert ["full", "30", "0.500", "1", "0"] in rows
    assert ["lkidney", "left", "kidney"] in rows
    assert ["tumour", "-,", *unknown.split()] in rows


def test_a_training_that_diverged_ends_with_status_3_and_reports_it_in_json(
    fseft, blobs, workspace
):
    ended = fseft(
        *("adapt", str(blobs), "--model", "tiny", "--method", "linear-probe", "--k", "1"),
        *("--workspace", str(workspace.root), "--device", "cpu", "--json", "--set", "epochs=4"),
        *("--set", "learning_rate=1e8", "--set", "optimizer=sgd", "--set", "max_grad_norm=null"),
    )
    assert ended.status == 3
    assert json.loads(ended.out)["diverged"] is True
    assert any("the training diverged" in line for line in ended.warnings)
