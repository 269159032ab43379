"""`fseft models pull`: get a public checkpoint from its owner, whole and the same every time, and import it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from fseft.errors import FseftError
from fseft.steps.importing import checkpoint_of, import_model
from fseft.store import file_digest, model_cache, unwritable, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fseft.steps.importing import Imported
    from fseft.store import Store

OPEN = ("Apache-2.0", "BSD-3-Clause", "MIT", "CC-BY-4.0")
"""Licences that ask nothing before the use."""

_CHUNK = 1 << 20
_PARTIAL, _NO_SUCH_RANGE = 206, 416
_TIMEOUT_SECONDS = 60


def pull_model(
    name: str,
    store: Store,
    *,
    accept_licence: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Imported:
    """Download a model's public file, or the rest of it, and import it.

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
    file = model_cache() / "downloads" / f"{name}-{checkpoint.file}"
    if not file.is_file():
        _download(checkpoint.url, file, checkpoint.bytes, progress)
    found = file_digest(file)
    try:
        _check_pin(name, file, found)
        imported = import_model(name, file, store)
    except FseftError:
        file.unlink()  # what is not this model's file is of no use, and must not be found by the next call
        raise
    file.unlink()  # the converted weights are kept
    _pin(name, found)
    return imported


def _download(url: str, file: Path, expected: int | None, progress: Callable[[int, int], None]) -> None:
    """Get a file through `<file>.part`, which a later call goes on with."""
    _check_address(url)
    part = file.with_name(f"{file.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    here = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})  # noqa: S310 - checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            here = here if answer.status == _PARTIAL else 0
            total = here + int(answer.headers.get("Content-Length") or 0)
            with part.open("ab" if here else "wb") as out:
                while chunk := _read(answer, url):
                    out.write(chunk)
                    here += len(chunk)
                    progress(here, total)
    except urllib.error.HTTPError as error:
        if error.code == _NO_SUCH_RANGE:
            part.unlink()  # what is here is no beginning of what is there
        raise FseftError(
            f"cannot be had ({error.code} {error.reason})", file=url, hint="Run again, or later."
        ) from error
    except urllib.error.URLError as error:
        raise FseftError(
            f"cannot be had ({error.reason})", file=url, hint="Check the network and run again."
        ) from error
    except OSError as error:
        raise unwritable(part, error) from error
    _check_size(part, here, total, expected)
    part.replace(file)


def _read(answer: IO[bytes], url: str) -> bytes:
    try:
        return answer.read(_CHUNK)
    except (OSError, HTTPException) as error:
        raise FseftError(f"the download was cut off ({error})", file=url, hint="Run again to go on.") from error


def _check_address(url: str) -> None:
    address = urlsplit(url)
    if address.scheme != "https" and address.hostname not in ("localhost", "127.0.0.1"):
        raise FseftError("is no https address", file=url, hint="Repair the entry of this model.")


def _check_size(part: Path, here: int, total: int, expected: int | None) -> None:
    if total and here < total:
        raise FseftError(
            f"the download was cut off after {here:,} of {total:,} bytes", file=part, hint="Run again to go on."
        )
    if expected is not None and here != expected:
        part.unlink()
        raise FseftError(
            f"has {here:,} bytes, expected {expected:,}", file=part, hint="The owner has changed the file."
        )


def _check_pin(name: str, file: Path, found: str) -> None:
    """The first download of a model that could be imported decides which file it is."""
    pinned = _pins().get(name, found)
    if pinned != found:
        raise FseftError(
            f"the file of {name!r} is not the one of the first download (sha256 {found[:12]}, not {pinned[:12]})",
            file=file,
            hint=f"Ask its owner; to take the new one, delete {name!r} from {_pin_file()}.",
        )


def _pin(name: str, found: str) -> None:
    write_text(_pin_file(), json.dumps({**_pins(), name: found}, indent=2) + "\n")


def _pins() -> dict[str, str]:
    path = _pin_file()
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _pin_file() -> Path:
    return model_cache() / "pins.json"
