"""`--verbose` prints what a command resolved and reused, on stderr."""

from __future__ import annotations


def test_verbose_shows_plugins_weights_plan_and_reused_cases(fseft, blobs, workspace):
    ended = fseft(
        *("adapt", str(blobs), "--model", "tiny", "--method", "linear-probe", "--k", "1"),
        *("--workspace", str(workspace.root), "--device", "cpu", "--set", "epochs=1", "-v"),
    )
    details = ended.err
    for words in ("plugin builtin (fseft ", "Python 3.", "weights: ", "patch size: ", "memory: "):
        assert words in details
    assert "of 1 cases were preprocessed before" in details
    assert "features of 0 of" in details
