"""Download of public checkpoints from their owners, verified and imported once."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from fseft.documents import read_json
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.model_zoo.conversion import convert_checkpoint, find_imported, write_converted
from fseft.model_zoo.https import fetch
from fseft.model_zoo.hub import fetch_from_hub
from fseft.temporaries import remove_leftovers
from fseft.workspace import file_digest, file_lock, model_cache, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.model_zoo.conversion import ConvertedModel, ImportedModel, PublicModel
    from fseft.plugin import CheckpointSpec, FoundationModelSpec

OPEN_LICENCES = ("Apache-2.0", "BSD-3-Clause", "MIT", "CC-BY-4.0")
"""Licences that permit use without prior consent."""


def pull_model(
    model: PublicModel,
    *,
    accept_licence: bool = False,
    callbacks: Callbacks | None = None,
) -> ImportedModel:
    """Downloads and imports the checkpoint of a model, unless it was imported before.

    An interrupted download continues. The file is verified by its published sha256; without one,
    later downloads are compared with the first.

    Args:
        model: The model.
        accept_licence: Whether the user has read and accepts a licence that is not open.
        callbacks: Observer of the download.

    Returns:
        The model with a report on its tensors.

    Raises:
        FseftError: The licence is not accepted, the download fails, or the file is not the expected
            one.
    """
    spec, checkpoint = model.spec, model.checkpoint
    _check_access(spec, checkpoint, accept_licence=accept_licence)
    key = model.folder.relative_to(model_cache()).as_posix()
    file = _download_path(checkpoint, key)
    with file_lock(model.folder):
        return _pull(model, file, key, callbacks or Callbacks())


def _download_path(checkpoint: CheckpointSpec, key: str) -> Path:
    """Returns where the file is downloaded to; files that belong together have a folder."""
    folder, name = model_cache() / "downloads", key.replace("/", "-")
    if checkpoint.companions:
        return folder / name / checkpoint.file
    return folder / f"{name}-{checkpoint.file}"


def _remove(file: Path, checkpoint: CheckpointSpec) -> None:
    """Removes a download, and its folder if nothing else is in it."""
    file.unlink(missing_ok=True)
    for name, _ in checkpoint.companions:
        file.with_name(name).unlink(missing_ok=True)
    if checkpoint.companions:
        with suppress(OSError):
            file.parent.rmdir()


def _pull(model: PublicModel, file: Path, key: str, callbacks: Callbacks) -> ImportedModel:
    """Downloads and imports a checkpoint, which no other process downloads at the same time."""
    spec, checkpoint = model.spec, model.checkpoint
    remove_leftovers(model.folder.parent)
    expected = checkpoint.sha256 or _read_pins().get(key, "")
    imported = find_imported(model, expected)
    if imported:
        _remove(file, checkpoint)  # of a process killed at the very end
        return imported
    for url, part in _parts(checkpoint, file).items():
        if not part.is_file():
            _fetch(spec, checkpoint, url, part, callbacks)
    _check_size(checkpoint, file)
    sha256 = file_digest(file)
    converted = _verify_and_convert(model, file, key)
    imported = write_converted(converted, model.folder)
    _remove(file, checkpoint)  # the converted weights are kept
    if not checkpoint.sha256:
        _pin(key, sha256)
    return imported


def _check_access(
    spec: FoundationModelSpec, checkpoint: CheckpointSpec, *, accept_licence: bool
) -> None:
    name, home, licence = spec.name, spec.card.home, spec.card.licence
    if not checkpoint.url:
        hint = f"Download {checkpoint.file} from {home}, then `fseft models import {name} FILE`."
        raise FseftError(f"the weights of {name!r} must be downloaded manually", hint=hint)
    if licence not in OPEN_LICENCES and not accept_licence:
        raise FseftError(
            f"the weights of {name!r} have the licence {licence or '(not stated)'}, which must be "
            "accepted",
            hint=f"Read it at {home}, then repeat with accept-licence.",
        )


def _parts(checkpoint: CheckpointSpec, file: Path) -> dict[str, Path]:
    """Returns the address of each file of a checkpoint, and where it is downloaded to."""
    folder = checkpoint.url.rpartition("/")[0]
    companions = {f"{folder}/{name}": file.with_name(name) for name, _ in checkpoint.companions}
    return {checkpoint.url: file, **companions}


def _fetch(
    spec: FoundationModelSpec,
    checkpoint: CheckpointSpec,
    url: str,
    file: Path,
    callbacks: Callbacks,
) -> None:
    """Downloads a file of a checkpoint."""
    name = url.rpartition("/")[2] if checkpoint.companions else checkpoint.file
    manual = f"download {name} manually, then `fseft models import {spec.name} FILE`."
    if not fetch_from_hub(url, file):
        fetch(
            url,
            file,
            alternative=manual,
            on_bytes=lambda received, total: callbacks.on_download(spec.name, received, total),
        )


def _check_size(checkpoint: CheckpointSpec, file: Path) -> None:
    """Refuses and removes a file of another size than the published one."""
    size = file.stat().st_size
    if checkpoint.bytes is not None and size != checkpoint.bytes:
        _remove(file, checkpoint)
        raise FseftError(
            f"has {size:,} bytes, expected {checkpoint.bytes:,}",
            file=file,
            hint="The owner may have replaced it; report this to the author of the plugin.",
        )


def _verify_and_convert(model: PublicModel, file: Path, key: str) -> ConvertedModel:
    """Verifies and converts a download, and removes a file that is not the expected one."""
    try:
        if model.checkpoint.sha256:
            _check_published_digest(file, model.checkpoint.sha256)
        else:
            _check_pin(key, file)
        for name, sha256 in model.checkpoint.companions:
            _check_published_digest(file.with_name(name), sha256)
        return convert_checkpoint(model, file)
    except FseftError:
        _remove(file, model.checkpoint)
        raise


def _check_published_digest(file: Path, expected: str) -> None:
    sha256 = file_digest(file)
    if sha256 != expected:
        raise FseftError(
            f"has the sha256 {sha256[:12]}, expected {expected[:12]}",
            file=file,
            hint="Download it again; the owner may have replaced it.",
        )


def _check_pin(key: str, file: Path) -> None:
    """Compares a download without published sha256 with the first one of this model."""
    sha256 = file_digest(file)
    pinned = _read_pins().get(key, sha256)
    if pinned != sha256:
        raise FseftError(
            f"differs from the first download (sha256 {sha256[:12]}, before {pinned[:12]})",
            file=file,
            hint=f"Ask its owner; to accept the new file, delete {key!r} from {_pin_file()}.",
        )


def _pin(key: str, sha256: str) -> None:
    with file_lock(_pin_file()):
        write_text(_pin_file(), json.dumps({**_read_pins(), key: sha256}, indent=2) + "\n")


def _read_pins() -> dict[str, str]:
    path = _pin_file()
    if not path.is_file():
        return {}
    hint = "Repair it; without it, downloads are no longer compared with the first ones."
    pins: dict[str, str] = read_json(path, dict[str, str], name="list of sha256", hint=hint)
    return pins


def _pin_file() -> Path:
    return model_cache() / "pins.json"
