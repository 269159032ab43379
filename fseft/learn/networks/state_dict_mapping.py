"""From the tensors of somebody's checkpoint to those of a network: unwrapped, renamed, complete or refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from fseft.errors import FseftError, pluralise
from fseft.registry import import_object
from fseft.schemas import FrozenModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from fseft.plugin import CheckpointSpec

WRAPPERS = ("state_dict", "net", "model", "network_weights", "student", "teacher", "tensors")
"""Where training programs keep the weights in their checkpoints."""

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
"""What wrappers put before every name: DistributedDataParallel, torch.compile, and classes around a backbone."""

_SHOWN = 8  # groups of names in a report


class LoadReport(FrozenModel):
    """What became of a checkpoint's tensors, by name; groups count the names below one module."""

    loaded: int
    parameters: int
    renamed: int = 0
    ignored: dict[str, int] = Field(default_factory=dict)
    unused: dict[str, int] = Field(default_factory=dict)
    random: dict[str, int] = Field(default_factory=dict)
    rows: tuple[str, ...] = ()
    """Classes whose rows of the head were copied."""

    def describe(self) -> list[str]:
        """A few lines for a person."""
        lines = [
            f"{self.loaded} tensors with {self.parameters:,} parameters loaded, {self.renamed} of them renamed"
        ]
        if self.rows:
            lines.append(f"go on from the model's own: {', '.join(self.rows)}")
        for what, groups in (
            ("not needed", self.ignored),
            ("unused", self.unused),
            ("not in the file, so random", self.random),
        ):
            if groups:
                lines.append(
                    f"{what}: {', '.join(f'{group} ({count})' for group, count in groups.items())}"
                )
        return lines


def unwrap(content: object, keys: Sequence[str] = ()) -> dict[str, Tensor]:
    """The tensors of a loaded file, by name.

    Args:
        content: What the file holds.
        keys: Tried before the usual ones.

    Raises:
        FseftError: There are none.
    """
    content = _by_name(content)
    while isinstance(content, Mapping):
        candidates = (_by_name(content.get(key)) for key in (*keys, *WRAPPERS))
        inner = next(
            (candidate for candidate in candidates if isinstance(candidate, Mapping)), None
        )
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        held = f"holds a {type(content).__name__}, no tensors by name"
        raise FseftError(held, hint="Give the file with the model's weights.")
    tensors = {
        str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)
    }
    if not tensors:
        held = f" (but {', '.join(map(str, list(content)[:_SHOWN]))})" if content else ""
        raise FseftError(
            f"holds no weights{held}", hint="Give the file with the model, not the optimizer's."
        )
    return tensors


def _by_name(content: object) -> object:
    """The tensors of a network that was saved whole, which only `--trust` reads."""
    return content.state_dict() if isinstance(content, torch.nn.Module) else content


def strip_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Name -> name without what wrappers put before most of them, however often."""
    stripped = {name: name for name in names}
    while prefix := _common(list(stripped.values())):
        stripped = {name: short.removeprefix(prefix) for name, short in stripped.items()}
    return stripped


def _common(names: list[str]) -> str:
    return next(
        (p for p in PREFIXES if 2 * sum(name.startswith(p) for name in names) > len(names)), ""
    )


def matching_checkpoints(
    names: Iterable[str], checkpoints: Mapping[str, CheckpointSpec]
) -> list[str]:
    """The models whose public file has such names."""
    stripped = strip_prefixes(names)
    known = {*stripped, *stripped.values()}

    def has(mark: str) -> bool:
        return any(re.search(mark, name) for name in known)

    return [
        model
        for model, checkpoint in checkpoints.items()
        if all(map(has, checkpoint.marks)) and not any(map(has, checkpoint.foreign))
    ]


def match_state_dict(
    tensors: Mapping[str, Tensor], checkpoint: CheckpointSpec, wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], LoadReport]:
    """Choose a network's tensors from those of a file.

    Args:
        tensors: Of the file, unwrapped.
        checkpoint: How the file names them.
        wanted: The network's state dict with its parameters as such (`keep_vars`); no numbers are used.

    Returns:
        Tensors by the network's names, as stored, and what happened to all of them.

    Raises:
        FseftError: One that the checkpoint should cover is missing, or of another shape.
    """
    short = strip_prefixes(tensors)
    ignored = [name for name in short.values() if _matches(name, checkpoint.ignored)]
    renamed = {
        name: _renamed(name, checkpoint.renames) for name in short.values() if name not in ignored
    }
    found = {renamed[s]: tensors[name] for name, s in short.items() if s in renamed}
    if twice := [
        target
        for target, times in Counter(renamed[s] for s in short.values() if s in renamed).items()
        if times > 1
    ]:
        raise FseftError(
            f"holds {twice[0]} twice, under different names",
            hint="Give a file with one set of weights.",
        )
    if checkpoint.convert:
        found = import_object(checkpoint.convert)(found)
    _refuse_other_shapes(found, wanted)
    covered = [name for name in wanted if re.search(checkpoint.covers, name)]
    # Whole numbers are counters and index tables, which a network makes for itself.
    missing = [name for name in covered if name not in found and wanted[name].is_floating_point()]
    if missing:
        held = f"holds {len(covered) - len(missing)} of the {len(covered)} tensors that it should"
        raise FseftError(f"{held} (missing: {_told(missing)})", hint="Give the whole public file.")
    chosen = {name: found[name] for name in wanted if name in found}
    return chosen, LoadReport(
        loaded=len(chosen),
        parameters=sum(
            wanted[name].numel() for name in chosen if isinstance(wanted[name], torch.nn.Parameter)
        ),
        renamed=sum(renamed[s] != name for name, s in short.items() if renamed.get(s) in chosen),
        ignored=_groups(ignored),
        unused=_groups(name for name in found if name not in wanted),
        random=_groups(
            name for name in wanted if name not in found and wanted[name].is_floating_point()
        ),
    )


def _refuse_other_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    other = [name for name in found if name in wanted and found[name].shape != wanted[name].shape]
    if other:
        name = other[0]
        raise FseftError(
            f"{pluralise(len(other), 'tensor')} of another shape: {name} is {_shape(found[name])}, "
            f"the network's is {_shape(wanted[name])}",
            hint="It is of another width, or for other classes.",
        )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _renamed(name: str, renames: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _groups(names: Iterable[str]) -> dict[str, int]:
    """How many names lie below each first part, the most first."""
    return dict(Counter(name.split(".")[0] for name in names).most_common())


def _told(names: Sequence[str]) -> str:
    groups = list(_groups(names).items())
    return ", ".join(f"{group} {count}" for group, count in groups[:_SHOWN]) + (
        ", ..." if len(groups) > _SHOWN else ""
    )


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def output_fingerprint(outputs: Tensor) -> dict[str, Any]:
    """A few statistics of a network's output on a fixed input, by which a changed function is noticed."""
    values = outputs.detach().double()
    picked = values.flatten()[:: max(1, values.numel() // 16)][:16]
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "values": [float(v) for v in picked],
    }
