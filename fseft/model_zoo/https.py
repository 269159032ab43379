"""Download of a file over https, which continues where an earlier call was interrupted."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fseft.errors import FseftError
from fseft.workspace import write_error, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LOOPBACK_SWITCH = "FSEFT_ALLOW_LOOPBACK_HTTP"
"""Environment variable that allows http from this machine, for tests (`1`)."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60
_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
_LOGIN_REQUIRED = (401, 403)
_NOT_FOUND = 404


@dataclass(frozen=True)
class _PartialFile:
    """A file that is incomplete, and the tag of the version that it belongs to."""

    content: Path
    tag: Path

    @classmethod
    def of(cls, file: Path) -> _PartialFile:
        return cls(file.with_name(f"{file.name}.part"), file.with_name(f"{file.name}.version"))

    def request_headers(self) -> dict[str, str]:
        """Headers that request the missing bytes, if the file on the server is still the same."""
        if not (self.content.is_file() and self.tag.is_file()):
            return {}
        tag = self.tag.read_text(encoding="utf-8")
        start = self.content.stat().st_size
        return {"Range": f"bytes={start}-", "If-Range": tag} if tag else {}

    def restart(self, headers: Mapping[str, str]) -> None:
        """Discards the content, and stores the tag of the new version."""
        self.content.unlink(missing_ok=True)
        write_text(self.tag, _version_tag(headers))

    def complete(self, file: Path) -> None:
        """Moves the complete content to its place."""
        self.tag.unlink()
        self.content.replace(file)


def fetch(url: str, file: Path, *, alternative: str, on_bytes: Callable[[int, int], None]) -> None:
    """Downloads a file.

    Args:
        url: An https address; redirects to other schemes are refused.
        file: Target file. `<file>.part` holds the bytes received so far.
        alternative: Other way to obtain the file, for errors.
        on_bytes: Called with the number of bytes received, and their total (0: unknown).

    Raises:
        FseftError: The address is not https, the download fails, or the disk is full.
    """
    _check_address(url)
    partial = _PartialFile.of(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers=partial.request_headers())  # noqa: S310 - checked
    opener = urllib.request.build_opener(_CheckedRedirects)
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as response:
            _receive(response, partial, url, on_bytes)
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            partial.content.unlink()  # it is not the beginning of the file on the server
        raise _http_error(error, url, alternative) from error
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        hint = f"Check the network and run again, or {alternative}"
        raise FseftError(f"download failed ({reason})", file=url, hint=hint) from error
    except OSError as error:
        raise write_error(partial.content, error) from error
    partial.complete(file)


def _receive(
    response: Any, partial: _PartialFile, url: str, on_bytes: Callable[[int, int], None]
) -> None:
    """Appends the body of a response to the partial file."""
    if response.status != _PARTIAL_CONTENT:
        partial.restart(response.headers)
    received = partial.content.stat().st_size if partial.content.is_file() else 0
    total = received + int(response.headers.get("Content-Length") or 0)
    with partial.content.open("ab") as output:
        while chunk := _read_chunk(response, url):
            output.write(chunk)
            received += len(chunk)
            on_bytes(received, total)
    if total and received < total:
        raise FseftError(
            f"the download was interrupted after {received:,} of {total:,} bytes",
            file=partial.content,
            hint="Run again to continue.",
        )


def _read_chunk(response: IO[bytes], url: str) -> bytes:
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        cause = f"the download was interrupted ({error})"
        raise FseftError(cause, file=url, hint="Run again to continue.") from error


def _version_tag(headers: Mapping[str, str]) -> str:
    """Identifies the version of a file; weak tags (W/) do not identify its bytes."""
    tag = headers.get("ETag") or ""
    return tag if tag.startswith('"') else headers.get("Last-Modified") or ""


def _http_error(error: urllib.error.HTTPError, url: str, alternative: str) -> FseftError:
    remedy = f"Run again later, or {alternative}"
    if error.code in _LOGIN_REQUIRED:
        remedy = f"Its owner requires a login: {alternative}"
        if urlsplit(url).hostname == "huggingface.co":
            remedy += " Or install fseft[hub], and log in by `hf auth login`."
    elif error.code == _NOT_FOUND:
        remedy = f"The file may have moved: {alternative}"
    return FseftError(f"download failed ({error.code} {error.reason})", file=url, hint=remedy)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https addresses only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Checks the new address.

        Raises:
            FseftError: It is not https.
        """
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str) -> None:
    """Refuses addresses whose content could be altered on the way.

    Raises:
        FseftError: The address is not https; http from this machine needs the environment switch.
    """
    address = urlsplit(url)
    is_loopback = address.scheme == "http" and address.hostname in ("localhost", "127.0.0.1")
    if address.scheme == "https" or (is_loopback and os.environ.get(LOOPBACK_SWITCH) == "1"):
        return
    raise FseftError(
        "refusing an address that is not https",
        file=url,
        hint="Download the file manually, and report this to the author of the plugin.",
    )
