"""What the command line prints of the library: details with `--verbose`, and warnings."""

from __future__ import annotations

import logging

from fseft.errors import FseftError


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


def test_warnings_name_options_instead_of_parameters(fseft, monkeypatch):
    def warn(*_arguments, **_options):
        logging.getLogger("fseft.adaptation").warning("set `half`, `missing_label` or `other`")
        raise FseftError("stopped")

    monkeypatch.setattr("fseft.api.adapt", warn)
    ended = fseft("adapt", "livers", "-v")
    assert ended.warnings == ["warning: set `--fp16`, `--missing-label` or `other`"]
