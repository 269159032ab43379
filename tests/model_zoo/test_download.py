"""Public checkpoints are downloaded completely, resumed after an interruption, and verified."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import sys
import threading
import types
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fseft.api import pull_model
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.model_zoo import conversion
from fseft.model_zoo.catalogue import find_model
from fseft.model_zoo.https import LOOPBACK_SWITCH
from fseft.model_zoo.hub import fetch_from_hub
from fseft.registration import Registration
from fseft.registry import registry
from fseft.workspace import file_digest, model_cache
from tests import checkpoint_files

from .test_conversion import narrow


class Owner:
    """A server on loopback with a single file, which it may cut off, change or redirect."""

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
    """The model `suprem_unet` at small width, on loopback under an open licence; may be changed."""
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv(LOOPBACK_SWITCH, "1")
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
    class Recorder(Callbacks):
        received = None

        def on_download(self, name, received, total):
            self.received = (name, received, total)

    recorder = Recorder()
    pulled = pull_model("suprem_unet", workspace, callbacks=recorder)
    assert find_model("suprem_unet", workspace).has_weights
    assert pulled.report.loaded == 104 + 13  # the backbone, and the head that texts drive
    assert recorder.received == ("suprem_unet", len(hosted.content), len(hosted.content))
    assert list((model_cache() / "downloads").iterdir()) == []


def test_an_intact_model_is_not_downloaded_again(hosted, workspace):
    first = pull_model("suprem_unet", workspace)
    assert (first.is_new, first.replaced) == (True, "")
    again = pull_model("suprem_unet", workspace)
    assert (again.is_new, again.card, again.report) == (False, first.card, first.report)
    assert hosted.asked == [None]
    weights = first.folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    damaged = file_digest(weights)
    mended = pull_model("suprem_unet", workspace)
    assert (mended.is_new, mended.card.sha256, mended.replaced) == (
        True,
        first.card.sha256,
        damaged,
    )


def test_an_interrupted_download_is_resumed(hosted, workspace):
    hosted.cut_after = 50_000
    with pytest.raises(
        FseftError, match=r"interrupted after 50,000 of .* bytes.*Run again to continue"
    ):
        pull_model("suprem_unet", workspace)
    assert not find_model("suprem_unet", workspace).has_weights
    hosted.cut_after = None
    pull_model("suprem_unet", workspace)
    assert hosted.asked == [None, "bytes=50000-"]
    assert list((model_cache() / "downloads").iterdir()) == []


@pytest.mark.parametrize(("first", "second"), [('"first"', '"second"'), ('W/"weak"', 'W/"weak"')])
def test_a_partial_file_is_not_completed_by_another_version(first, second, hosted, workspace):
    good, hosted.content = hosted.content, bytes(len(hosted.content))
    hosted.tag, hosted.cut_after = first, 50_000
    with pytest.raises(FseftError, match="interrupted"):
        pull_model("suprem_unet", workspace)
    hosted.content, hosted.tag, hosted.cut_after = good, second, None
    assert pull_model("suprem_unet", workspace).report.loaded > 0


def test_a_redirect_to_an_address_that_is_not_encrypted_is_not_followed(hosted, workspace):
    hosted.elsewhere = "http://example.org/weights"
    with pytest.raises(
        FseftError, match=r"^http://example\.org/weights: refusing an address that is not https"
    ):
        pull_model("suprem_unet", workspace)


def test_a_full_disk_costs_no_second_download(hosted, workspace, monkeypatch):
    def full(path, tensors):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(conversion, "write_weights", full)
        with pytest.raises(FseftError, match=r"the disk is full\. Free some space"):
            pull_model("suprem_unet", workspace)
    assert not find_model("suprem_unet", workspace).has_weights
    pull_model("suprem_unet", workspace)
    assert hosted.asked == [None]
    assert find_model("suprem_unet", workspace).has_weights


def test_without_a_published_digest_the_first_download_is_the_reference(
    hosted, workspace, tmp_path
):
    pull_model("suprem_unet", workspace)
    pinned = json.loads((model_cache() / "pins.json").read_text())
    hosted.content += b"\0"
    shutil.rmtree(model_cache() / "fseft")
    with pytest.raises(FseftError, match="differs from the first download"):
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
        FseftError,
        match=r"licence CC-BY-NC-ND-4\.0, which must be accepted\. Read it at https://.*accept-licence",
    ):
        pull_model("suprem_unet", workspace)
    assert hosted.asked == []
    assert (
        pull_model("suprem_unet", workspace, accept_licence=True).report.loaded == 104 + 13
    )  # the backbone, and the head that texts drive


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must be downloaded manually.*fseft models import suprem_unet FILE"),
        ("file://localhost/etc/hostname", "refusing an address that is not https"),
        ("ftp://localhost/weights", "refusing an address that is not https"),
        ("http://example.org/weights", "refusing an address that is not https"),
        (
            "http://127.0.0.1:9/weights",
            r"download failed.*Check the network and run again, or download .* models import",
        ),
    ],
)
def test_a_failed_download_is_reported_with_a_remedy(url, words, hosted, workspace, monkeypatch):
    entry(monkeypatch, url=url)
    with pytest.raises(FseftError, match=words):
        pull_model("suprem_unet", workspace)


def test_a_missing_file_is_reported_with_its_address(hosted, workspace, monkeypatch):
    entry(
        monkeypatch, url=registry().resolve("model", "suprem_unet").spec.checkpoint.url + "-moved"
    )
    with pytest.raises(
        FseftError,
        match=r"-moved: download failed \(404 .*may have moved.*models import suprem_unet",
    ):
        pull_model("suprem_unet", workspace)


def test_a_file_that_is_not_a_model_is_neither_kept_nor_pinned(hosted, workspace):
    good, hosted.content = hosted.content, b"<html>come back later</html>"
    with pytest.raises(FseftError, match="cannot be read as a file of weights"):
        pull_model("suprem_unet", workspace)
    assert list((model_cache() / "downloads").iterdir()) == []
    hosted.content = good
    assert pull_model("suprem_unet", workspace).report.loaded > 0


def test_http_from_this_machine_needs_the_switch(hosted, workspace, monkeypatch):
    monkeypatch.delenv(LOOPBACK_SWITCH)
    with pytest.raises(FseftError, match="refusing an address that is not https"):
        pull_model("suprem_unet", workspace)
    assert hosted.asked == []


def test_a_published_digest_is_verified_instead_of_a_pin(hosted, workspace, monkeypatch):
    entry(monkeypatch, sha256=hashlib.sha256(hosted.content).hexdigest())
    assert pull_model("suprem_unet", workspace).is_new
    assert not (model_cache() / "pins.json").exists()
    assert not pull_model("suprem_unet", workspace).is_new
    assert len(hosted.asked) == 1


def test_a_file_with_another_digest_is_refused_and_removed(hosted, workspace, monkeypatch):
    entry(monkeypatch, sha256="0" * 64)
    with pytest.raises(FseftError, match=r"has the sha256 \w+, expected 000000000000"):
        pull_model("suprem_unet", workspace)
    assert list((model_cache() / "downloads").iterdir()) == []
    assert not find_model("suprem_unet", workspace).has_weights


HUB_URL = "https://huggingface.co/owner/name/resolve/main/weights/model.pt"


class GatedRepoError(Exception):
    """The error of the hub for a repository whose conditions were not accepted."""


@pytest.fixture
def hub(monkeypatch):
    """A fake `huggingface_hub` that provides a file, or raises an error."""
    module = types.ModuleType("huggingface_hub")
    module.calls, module.content, module.error = [], b"", None

    def hf_hub_download(repo_id, filename, *, revision, local_dir):
        module.calls.append((repo_id, filename, revision))
        if module.error:
            raise module.error
        path = local_dir / filename
        path.parent.mkdir(parents=True)
        path.write_bytes(module.content)
        return str(path)

    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_files_of_the_hub_are_downloaded_by_its_package(hub, hosted, workspace, monkeypatch):
    entry(monkeypatch, url=HUB_URL)
    hub.content = hosted.content
    assert pull_model("suprem_unet", workspace).is_new
    assert hub.calls == [("owner/name", "weights/model.pt", "main")]
    assert list((model_cache() / "downloads").iterdir()) == []


def test_a_gated_repository_is_reported_with_what_to_do(hub, hosted, workspace, monkeypatch):
    entry(monkeypatch, url=HUB_URL)
    hub.error = GatedRepoError("403")
    with pytest.raises(FseftError, match=r"must be requested.*huggingface\.co/owner/name, log in"):
        pull_model("suprem_unet", workspace)


def test_other_addresses_are_downloaded_without_the_package(hub, hosted, workspace):
    assert pull_model("suprem_unet", workspace).is_new
    assert hub.calls == []


def test_without_the_package_files_of_the_hub_are_downloaded_over_https(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert not fetch_from_hub(HUB_URL, tmp_path / "file")
