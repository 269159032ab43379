"""`fseft models pull`: get a public checkpoint from its owner, whole and the same every time, and import it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from fseft.errors import FseftError
from fseft.model_zoo.catalogue import imported_folder
from fseft.model_zoo.conversion import checkpoint_of, convert, imported_before, keep
from fseft.workspace import file_digest, model_cache, write_error, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fseft.model_zoo.conversion import ConvertedModel, ImportedModel
    from fseft.workspace import Workspace

OPEN = ("Apache-2.0", "BSD-3-Clause", "MIT", "CC-BY-4.0")
"""Licences that ask nothing before the use."""

_CHUNK = 1 << 20
_PARTIAL, _NO_SUCH_RANGE = 206, 416
_TIMEOUT_SECONDS = 60
_LOGIN = "Its owner asks for a login: get it there in a browser,"
_REMEDIES = {401: _LOGIN, 403: _LOGIN, 404: "Its owner has moved it: look for it there,"}


def pull_model(
    name: str,
    store: Workspace,
    *,
    accept_licence: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ImportedModel:
    """Download a model's public file, or the rest of it, and import it; nothing is done if it is here.

    Args:
        name: The model.
        store: Knows the user's cache.
        accept_licence: The user has read and accepts the licence, where it is not an open one.
        progress: Told the bytes that are here, and how many there will be (0: unknown).

    Raises:
        FseftError: The licence is not accepted, the file cannot be had, or is not the one it was before.
    """
    spec, checkpoint = checkpoint_of(name)
    if not checkpoint.url:
        raise FseftError(
            f"the weights of {name!r} can only be got by hand",
            hint=f"Get {checkpoint.file} from {spec.card.home}, then `fseft models import {name} FILE`.",
        )
    if spec.card.licence not in OPEN and not accept_licence:
        raise FseftError(
            f"the weights of {name!r} are under the licence {spec.card.licence or '(none is told)'}",
            hint=f"Read it at {spec.card.home}, then give --accept-licence.",
        )
    folder = imported_folder(name, store)
    model = folder.relative_to(model_cache()).as_posix()
    if here := imported_before(name, store, _pins().get(model, "")):
        return here
    file = model_cache() / "downloads" / f"{model.replace('/', '-')}-{checkpoint.file}"
    if not file.is_file():
        by_hand = (
            f"or get {checkpoint.file} by other means, then `fseft models import {name} FILE`."
        )
        _download(checkpoint.url, file, checkpoint.bytes, progress, by_hand)
    found = file_digest(file)
    imported = keep(_converted(name, model, file, found), folder)
    file.unlink()  # the converted weights are kept
    _pin(model, found)
    return imported


def _converted(name: str, model: str, file: Path, found: str) -> ConvertedModel:
    """What the download gives; one that is not this model's file is of no use, and the next call must not find it."""
    try:
        _check_pin(model, file, found)
        return convert(name, file)
    except FseftError:
        file.unlink()
        raise


def _download(
    url: str, file: Path, expected: int | None, progress: Callable[[int, int], None], by_hand: str
) -> None:
    """Get a file through `<file>.part`, which a later call goes on with if the owner's file is still the same."""
    _check_address(url)
    part, version = (file.with_name(f"{file.name}.{suffix}") for suffix in ("part", "version"))
    part.parent.mkdir(parents=True, exist_ok=True)
    wanted = _rest(part, version)
    request = urllib.request.Request(url, headers=wanted)  # noqa: S310 - checked
    try:
        with urllib.request.build_opener(_CheckedRedirects).open(
            request, timeout=_TIMEOUT_SECONDS
        ) as answer:
            goes_on = answer.status == _PARTIAL
            if not goes_on:
                part.unlink(missing_ok=True)
                write_text(version, _version(answer.headers))
            here = part.stat().st_size if goes_on else 0
            total = here + int(answer.headers.get("Content-Length") or 0)
            with part.open("ab") as out:
                while chunk := _read(answer, url):
                    out.write(chunk)
                    here += len(chunk)
                    progress(here, total)
    except urllib.error.HTTPError as error:
        if error.code == _NO_SUCH_RANGE:
            part.unlink()  # what is here is no beginning of what is there
        remedy = _REMEDIES.get(error.code, "Run again, or later,")
        raise FseftError(
            f"cannot be had ({error.code} {error.reason})", file=url, hint=f"{remedy} {by_hand}"
        ) from error
    except urllib.error.URLError as error:
        raise FseftError(
            f"cannot be had ({getattr(error.reason, 'strerror', None) or error.reason})",
            file=url,
            hint=f"Check the network and run again, {by_hand}",
        ) from error
    except OSError as error:
        raise write_error(part, error) from error
    _check_size(part, here, total, expected)
    part.replace(file)
    version.unlink()


def _rest(part: Path, version: Path) -> dict[str, str]:
    """Ask for what is not here yet, or for all of it if the owner's file has changed or cannot be told from another."""
    known = version.read_text(encoding="utf-8") if part.is_file() and version.is_file() else ""
    return {"Range": f"bytes={part.stat().st_size}-", "If-Range": known} if known else {}


def _version(headers: Mapping[str, str]) -> str:
    """What tells this file from the next one at its address; weak tags (W/) do not."""
    tag = headers.get("ETag") or ""
    return tag if tag.startswith('"') else headers.get("Last-Modified") or ""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Owners may send on to where their files lie, but not to where anybody can change them on their way."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Raises: FseftError: to an address that is not encrypted."""
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(answer: IO[bytes], url: str) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise FseftError(
            f"the download was cut off ({error})", file=url, hint="Run again to go on."
        ) from error


def _check_address(url: str) -> None:
    """Refuse to download what anybody on the way could change.

    Raises:
        FseftError: The address is not https, nor on this machine.
    """
    address = urlsplit(url)
    if address.scheme != "https" and address.hostname not in ("localhost", "127.0.0.1"):
        raise FseftError(
            "is no https address",
            file=url,
            hint="Get the file by hand, and tell who made the entry.",
        )


def _check_size(part: Path, here: int, total: int, expected: int | None) -> None:
    if total and here < total:
        raise FseftError(
            f"the download was cut off after {here:,} of {total:,} bytes",
            file=part,
            hint="Run again to go on.",
        )
    if expected is not None and here != expected:
        part.unlink()
        part.with_suffix(".version").unlink(missing_ok=True)
        raise FseftError(
            f"has {here:,} bytes, expected {expected:,}",
            file=part,
            hint="Its owner has changed it; tell who made the entry.",
        )


def _check_pin(model: str, file: Path, found: str) -> None:
    """The first download of a model that could be imported decides which file it is."""
    pinned = _pins().get(model, found)
    if pinned != found:
        raise FseftError(
            f"the file of {model!r} is not the one of the first download (sha256 {found[:12]}, not {pinned[:12]})",
            file=file,
            hint=f"Ask its owner; to take the new one, delete {model!r} from {_pin_file()}.",
        )


def _pin(model: str, found: str) -> None:
    write_text(_pin_file(), json.dumps({**_pins(), model: found}, indent=2) + "\n")


def _pins() -> dict[str, str]:
    path = _pin_file()
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _pin_file() -> Path:
    return model_cache() / "pins.json"
