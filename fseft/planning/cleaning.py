"""Removes caches that no dataset and no process uses, and what killed processes have left."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.schemas import Fingerprint
from fseft.temporaries import remove_folder, remove_leftovers, remove_unused, unused
from fseft.workspace import read_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.workspace import Workspace

logger = logging.getLogger(__name__)


def clean(workspace: Workspace, *, everything: bool = False) -> list[Path]:
    """Removes preprocessed cases whose files have changed since, or of an earlier version.

    These are cases that are not in the fingerprint of their dataset. What a process uses stays, and
    all cases of a dataset whose fingerprint is missing or damaged; everything that is removed is
    made again when it is needed.

    Args:
        workspace: The workspace.
        everything: Remove all preprocessed cases and cached features that no process uses.

    Returns:
        The folders that were removed.

    Raises:
        OSError: A folder cannot be removed.
    """
    removed: list[Path] = []
    for dataset in sorted((workspace.root / "preprocessed").glob("*")):
        remove_leftovers(dataset)
        contents = None if everything else _current_contents(workspace, dataset.name)
        for cache in sorted(dataset.glob("[!.]*")):
            remove_leftovers(cache)
            if everything:
                removed += [cache] if remove_unused(cache) else []
            elif contents is not None and not cache.name.startswith("features-"):
                removed += _remove_outdated(cache, contents)
    return removed


def _current_contents(workspace: Workspace, dataset: str) -> set[str] | None:
    """Returns the content keys of the cases of a dataset when it was planned last, if known."""
    try:
        fingerprint = read_document(workspace.fingerprint(dataset), Fingerprint)
    except FseftError as error:
        logger.warning("%s: its preprocessed cases are kept (%s)", dataset, error)
        return None
    return {case.content for case in fingerprint.cases}


def _remove_outdated(cache: Path, contents: set[str]) -> list[Path]:
    """Removes the cases with other contents, unless a process uses the cache."""
    from fseft.volume.cache import META

    removed = []
    with unused(cache) as is_unused:
        for meta in sorted(cache.glob(f"[!.]*/{META}")) if is_unused else ():
            case = meta.parent
            if case.name.rpartition("-")[2] not in contents:
                remove_folder(case)
                removed.append(case)
    return removed
