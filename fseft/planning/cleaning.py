"""Removes caches that no dataset and no process uses, and what killed processes have left."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from fseft.errors import FseftError
from fseft.schemas import Fingerprint
from fseft.temporaries import remove_folder, remove_leftovers, remove_unused, unused
from fseft.workspace import read_document

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.workspace import Workspace


def clean(workspace: Workspace, *, everything: bool = False) -> list[Path]:
    """Removes preprocessed cases whose files have changed since, or of an earlier version.

    These are cases that are not in the fingerprint of their dataset. What a process uses stays;
    everything that is removed is made again when it is needed.

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
        contents = _current_contents(workspace, dataset.name)
        for cache in sorted(dataset.glob("[!.]*")):
            remove_leftovers(cache)
            if everything:
                removed += [cache] if remove_unused(cache) else []
            elif not cache.name.startswith("features-"):
                removed += _remove_outdated(cache, contents)
    return removed


def _current_contents(workspace: Workspace, dataset: str) -> set[str]:
    """Returns the content keys of the cases of a dataset when it was planned last."""
    with suppress(FseftError):
        fingerprint = read_document(workspace.fingerprint(dataset), Fingerprint)
        return {case.content for case in fingerprint.cases}
    return set()


def _remove_outdated(cache: Path, contents: set[str]) -> list[Path]:
    """Removes the cases with other contents, unless a process uses the cache."""
    removed = []
    with unused(cache) as is_unused:
        for case in sorted(cache.glob("[!.]*")) if is_unused else ():
            if case.name.rpartition("-")[2] not in contents:
                remove_folder(case)
                removed.append(case)
    return removed
