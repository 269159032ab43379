"""The program, called in this process, and how a refusal looks."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass

import pytest

from fseft.cli.main import main


@dataclass(frozen=True)
class Ended:
    """How a call ended."""

    status: int
    out: str
    err: str

    @property
    def lines(self):
        return self.err.splitlines()

    @property
    def warnings(self):
        return [line for line in self.lines if line.startswith("warning: ")]


@pytest.fixture
def fseft(tmp_path, monkeypatch, capsys):
    """Call the program as the entry point does, in this process, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSEFT_NO_PLUGINS", "1")
    monkeypatch.setenv("FSEFT_DISABLE_PLUGINS", "")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fseft", *arguments])
        status = 0
        with warnings.catch_warnings():
            warnings.resetwarnings()  # pytest's own filter would raise the warnings of the program
            try:
                main()
            except SystemExit as end:
                status = int(end.code or 0)
        printed = capsys.readouterr()
        return Ended(status, printed.out, printed.err)

    return call


def refused(ended, words, *, warned=0):
    """One line of an error with these words, status 2, nothing on stdout."""
    assert "Traceback" not in ended.err
    assert ended.status == 2, ended
    assert len(ended.warnings) == warned, ended.err
    assert len(ended.lines) == warned + 1, ended.err
    line = ended.lines[-1]
    assert line.startswith("error: ")
    for word in words:
        assert word in line, line
    assert ended.out == ""
