"""Combines adapters in weight space, and changes their strength."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from fseft.api._resolve import as_workspace
from fseft.errors import FseftError
from fseft.inference.adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fseft.api._resolve import AdapterLike, WorkspaceLike


def combine_adapters(
    adapters: Sequence[AdapterLike],
    output: str | Path,
    *,
    weights: Sequence[float] = (),
    rank: int | None = None,
    overwrite: bool = False,
    workspace: WorkspaceLike = ".",
) -> tuple[Adapter, float]:
    """Writes the weighted mean of adapters of one model, such as those of several seeds.

    Plain LoRA adapters give a LoRA adapter; adapters of other methods whose changes merge into the
    weights give one of the method `full`, which has the size of the network.

    Args:
        adapters: Two or more, with equal structures and preprocessing.
        output: File to write.
        weights: Weight of each, normalised to a sum of 1; equal by default.
        rank: Rank of the result, for LoRA. Default: the sum of the ranks, which is exact.
        overwrite: Replace the file if it exists.
        workspace: Where models of the user are stored.

    Returns:
        The adapter, and the relative error of its low-rank deltas (0 where it is exact, up to
        rounding).

    Raises:
        FseftError: The adapters cannot be combined, a value is not finite, or the file exists.
    """
    if len(adapters) < 2:
        raise FseftError("pass at least two adapters", hint="`scale` changes a single one.")
    parts = tuple(weights) or (1.0,) * len(adapters)
    total = sum(parts)
    if len(parts) != len(adapters) or min(parts) < 0 or not 0 < total < math.inf:
        cause = f"{len(parts)} weights for {len(adapters)} adapters, or a negative one"
        raise FseftError(cause, hint="Pass a weight of 0 or more for each adapter.")
    shares = [part / total for part in parts]
    return _write(adapters, shares, output, rank, overwrite=overwrite, workspace=workspace)


def scale_adapter(
    adapter: AdapterLike,
    output: str | Path,
    *,
    strength: float,
    overwrite: bool = False,
    workspace: WorkspaceLike = ".",
) -> Adapter:
    """Writes an adapter with a part of its effect: W0 + strength (W - W0).

    Args:
        adapter: An adapter, its file, or the folder of its run.
        output: File to write.
        strength: From 0, the foundation model with an untrained head, to 1, the adapter.
        overwrite: Replace the file if it exists.
        workspace: Where models of the user are stored.

    Raises:
        FseftError: The strength is not between 0 and 1, the changes of the adapter do not merge
            into the weights, or the file exists.
    """
    if not 0 <= strength <= 1:
        raise FseftError(f"the strength {strength:g} is not between 0 and 1", hint="Pass 0.5.")
    scaled, _ = _write([adapter], [strength], output, overwrite=overwrite, workspace=workspace)
    return scaled


def _write(
    adapters: Sequence[AdapterLike],
    weights: Sequence[float],
    output: str | Path,
    rank: int | None = None,
    *,
    overwrite: bool,
    workspace: WorkspaceLike,
) -> tuple[Adapter, float]:
    from fseft.inference.adapter_groups import open_adapters
    from fseft.model_zoo.adapter_file import write_adapter
    from fseft.model_zoo.combination import combine_adapters

    path, place = Path(output), as_workspace(workspace)
    if path.exists() and not overwrite:
        raise FseftError("exists already", file=path, hint="Pass `overwrite`, or another file.")
    files = [item.path if isinstance(item, Adapter) else Path(item) for item in adapters]
    combined = combine_adapters(open_adapters(files, place), weights, rank=rank)
    write_adapter(path, combined.tensors, combined.manifest)
    return Adapter.load(path, place), combined.error
