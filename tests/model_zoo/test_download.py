"""A public file is downloaded whole, gone on with where it was cut off, and the same every time."""

from __future__ import annotations

import errno
import json
import re
import shutil
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fseft.errors import FseftError
from fseft.model_zoo import conversion
from fseft.model_zoo.catalogue import has_weights
from fseft.model_zoo.download import pull_model
from fseft.registry import Registration, registry
from fseft.workspace import file_digest, model_cache
from tests import checkpoint_files

from .test_conversion import narrow


class Owner:
    """A server on loopback that hosts one file, and may cut it off, change it, or send on to another place."""

    def __init__(self, content):
        self.content, self.tag, self.cut_after, self.elsewhere, self.asked = (
            content,
            '"first"',
            None,
            "",
            [],
        )


@contextmanager
def serving(owner):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            owner.asked.append(self.headers.get("Range"))
            same = self.headers.get("If-Range") == owner.tag
            start = int(re.findall(r"\d+", self.headers.get("Range") or "0")[0]) if same else 0
            if owner.elsewhere:
                self.send_response(302)
                self.send_header("Location", owner.elsewhere)
                self.end_headers()
                return
            if self.path != "/weights" or start > len(owner.content):
                self.send_error(404 if self.path != "/weights" else 416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(owner.content) - start))
            self.send_header("ETag", owner.tag)
            self.end_headers()
            self.wfile.write(owner.content[start : owner.cut_after])

        def log_message(self, *_):
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def hosted(tmp_path, monkeypatch):
    """The model `suprem_unet` at small width, hosted on loopback under an open licence; the owner may be changed."""
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "models"))
    checkpoint_files.write("suprem_unet", tmp_path / "file")
    owner = Owner((tmp_path / "file").read_bytes())
    with serving(owner) as address:
        entry(monkeypatch, url=f"{address}/weights")
        yield owner


def entry(monkeypatch, *, licence="MIT", **changed):
    offer = registry().resolve("model", "suprem_unet")
    spec = replace(offer.spec, checkpoint=replace(offer.spec.checkpoint, **changed))
    monkeypatch.setitem(
        registry()._registrations, ("model", "suprem_unet"), [Registration(spec, offer.source)]
    )
    narrow(monkeypatch, spec, licence=licence)


def test_a_model_is_downloaded_and_imported_and_the_download_is_not_kept(hosted, workspace):
    told = []
    pulled = pull_model(
        "suprem_unet", workspace, progress=lambda done, total: told.append((done, total))
    )
    assert has_weights("suprem_unet", workspace)
    assert pulled.report.loaded == 104 + 13  # the backbone, and the head that texts drive
    assert told[-1] == (len(hosted.content), len(hosted.content))
    assert list((model_cache() / "downloads").iterdir()) == []


def test_what_is_here_and_whole_is_not_downloaded_again(hosted, workspace):
    first = pull_model("suprem_unet", workspace)
    assert (first.fresh, first.replaced) == (True, "")
    again = pull_model("suprem_unet", workspace)
    assert (again.fresh, again.card, again.report) == (False, first.card, first.report)
    assert hosted.asked == [None]
    weights = first.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    damaged = file_digest(weights)
    mended = pull_model("suprem_unet", workspace)
    assert (mended.fresh, mended.card.sha256, mended.replaced) == (True, first.card.sha256, damaged)


def test_a_download_that_was_cut_off_is_gone_on_with(hosted, workspace):
    hosted.cut_after = 50_000
    with pytest.raises(FseftError, match=r"cut off after 50,000 of .* bytes.*Run again to go on"):
        pull_model("suprem_unet", workspace)
    assert not has_weights("suprem_unet", workspace)
    hosted.cut_after = None
    pull_model("suprem_unet", workspace)
    assert hosted.asked == [None, "bytes=50000-"]
    assert list((model_cache() / "downloads").iterdir()) == []


@pytest.mark.parametrize(("first", "second"), [('"first"', '"second"'), ('W/"weak"', 'W/"weak"')])
def test_an_old_part_is_not_glued_to_a_file_that_may_be_another(first, second, hosted, workspace):
    good, hosted.content = hosted.content, bytes(len(hosted.content))
    hosted.tag, hosted.cut_after = first, 50_000
    with pytest.raises(FseftError, match="cut off"):
        pull_model("suprem_unet", workspace)
    hosted.content, hosted.tag, hosted.cut_after = good, second, None
    assert pull_model("suprem_unet", workspace).report.loaded > 0


def test_a_redirect_to_an_address_that_is_not_encrypted_is_not_followed(hosted, workspace):
    hosted.elsewhere = "http://example.org/weights"
    with pytest.raises(FseftError, match=r"^http://example\.org/weights: is no https address"):
        pull_model("suprem_unet", workspace)


def test_a_full_disk_costs_no_second_download(hosted, workspace, monkeypatch):
    def full(path, tensors):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "write_weights", full)
        with pytest.raises(FseftError, match=r"the disk is full\. Free some space"):
            pull_model("suprem_unet", workspace)
    assert not has_weights("suprem_unet", workspace)
    pull_model("suprem_unet", workspace)
    assert hosted.asked == [None]
    assert has_weights("suprem_unet", workspace)


def test_the_first_download_decides_which_file_it_is(hosted, workspace, tmp_path):
    pull_model("suprem_unet", workspace)
    pinned = json.loads((model_cache() / "pins.json").read_text())
    hosted.content += b"\0"
    shutil.rmtree(model_cache() / "fseft")
    with pytest.raises(FseftError, match="is not the one of the first download"):
        pull_model("suprem_unet", workspace)
    assert json.loads((model_cache() / "pins.json").read_text()) == pinned
    assert list((model_cache() / "downloads").iterdir()) == []


def test_a_file_of_another_size_than_the_entry_s_is_refused(hosted, workspace, monkeypatch):
    entry(monkeypatch, bytes=12)
    with pytest.raises(FseftError, match=r"has [\d,]+ bytes, expected 12"):
        pull_model("suprem_unet", workspace)
    assert list((model_cache() / "downloads").iterdir()) == []


def test_a_licence_that_is_not_open_is_to_be_accepted(hosted, workspace, monkeypatch):
    entry(monkeypatch, licence="CC-BY-NC-ND-4.0")
    with pytest.raises(
        FseftError, match=r"licence CC-BY-NC-ND-4\.0\. Read it at https://.*--accept-licence"
    ):
        pull_model("suprem_unet", workspace)
    assert hosted.asked == []
    assert (
        pull_model("suprem_unet", workspace, accept_licence=True).report.loaded == 104 + 13
    )  # the backbone, and the head that texts drive


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "can only be got by hand.*fseft models import suprem_unet FILE"),
        ("http://example.org/weights", "is no https address"),
        (
            "http://127.0.0.1:9/weights",
            r"cannot be had.*Check the network and run again, or get .* models import",
        ),
    ],
)
def test_what_cannot_be_had_is_told(url, words, hosted, workspace, monkeypatch):
    entry(monkeypatch, url=url)
    with pytest.raises(FseftError, match=words):
        pull_model("suprem_unet", workspace)


def test_a_file_that_is_gone_is_told_with_its_address(hosted, workspace, monkeypatch):
    entry(
        monkeypatch, url=registry().resolve("model", "suprem_unet").spec.checkpoint.url + "-moved"
    )
    with pytest.raises(
        FseftError, match=r"-moved: cannot be had \(404 .*has moved it.*models import suprem_unet"
    ):
        pull_model("suprem_unet", workspace)


def test_what_is_no_model_is_neither_kept_nor_pinned(hosted, workspace):
    good, hosted.content = hosted.content, b"<html>come back later</html>"
    with pytest.raises(FseftError, match="no file of weights"):
        pull_model("suprem_unet", workspace)
    assert list((model_cache() / "downloads").iterdir()) == []
    hosted.content = good
    assert pull_model("suprem_unet", workspace).report.loaded > 0
