"""Mapping of a foreign checkpoint to a network's state dict: unwrap, rename, convert, validate."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from pydantic import AliasChoices, Field

from fseft.errors import FseftError, pluralise
from fseft.registry import import_object
from fseft.schemas import FrozenModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from fseft.plugin import CheckpointSpec

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "net", "model", "network_weights", "student", "teacher", "tensors")
"""Keys under which training programs store the weights in their checkpoints."""

PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.")
"""Prefixes of DistributedDataParallel, torch.compile and of classes around a backbone."""

_MAX_GROUPS = 8  # groups of names in a message


class LoadReport(FrozenModel):
    """Summary of a checkpoint's tensors after the mapping; groups count the names below a module.

    Attributes:
        loaded: Number of tensors that the network received.
        parameters: Number of parameters in them.
        renamed: Number of loaded tensors whose names differ in the file.
        ignored: Tensors of the file that the checkpoint's description ignores.
        unused: Other tensors of the file that the network does not have.
        missing: Tensors of the network that the file does not contain, and that stay random.
        rows: Classes whose rows of the head were copied.
    """

    loaded: int
    parameters: int
    renamed: int = 0
    ignored: dict[str, int] = Field(default_factory=dict)
    unused: dict[str, int] = Field(default_factory=dict)
    missing: dict[str, int] = Field(
        default_factory=dict, validation_alias=AliasChoices("missing", "random")
    )
    rows: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """Returns the report as lines of text."""
        size = f"{self.loaded} tensors with {self.parameters:,} parameters"
        lines = [f"{size} loaded, {self.renamed} of them renamed"]
        if self.rows:
            lines.append(f"head rows copied from the model: {', '.join(self.rows)}")
        counted = {
            "not needed": self.ignored,
            "unused": self.unused,
            "not in the file, initialised randomly": self.missing,
        }
        for title, groups in counted.items():
            if groups:
                parts = ", ".join(f"{group} ({count})" for group, count in groups.items())
                lines.append(f"{title}: {parts}")
        return lines


def unwrap(content: object, keys: Sequence[str] = (), *, chosen: str = "") -> dict[str, Tensor]:
    """Returns the tensors of a loaded checkpoint by name.

    Logs a warning if the file has other sets of weights too.

    Args:
        content: Content of the file: nested dictionaries, or a module.
        keys: Keys of nested dictionaries, tried before the usual ones (`WRAPPERS`).
        chosen: Key of the set of weights, in a file with several.

    Raises:
        FseftError: The file contains no tensors, or no set of that name.

    Examples:
        >>> import torch
        >>> unwrap({"epoch": 3, "state_dict": {"head.bias": torch.zeros(2)}})
        {'head.bias': tensor([0., 0.])}
    """
    content = _state_dict(content)
    if chosen:
        content = _chosen_set(content, chosen)
    while isinstance(content, Mapping):
        key = _first_nested(content, (*keys, *WRAPPERS))
        if key is None:
            break
        if others := _other_sets(content, key):
            logger.warning(
                "the file has several sets of weights: %s is used, not %s; `weights` names another",
                key,
                ", ".join(others),
            )
        content = _state_dict(content[key])
    if not isinstance(content, Mapping):
        raise FseftError(
            f"contains a {type(content).__name__} instead of named tensors",
            hint="Use the file with the model's weights.",
        )
    tensors = {
        str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)
    }
    if not tensors:
        names = ", ".join(map(str, list(content)[:_MAX_GROUPS]))
        raise FseftError(
            f"contains no weights{f' (but {names})' if names else ''}",
            hint="Use the file with the model, not the optimizer's.",
        )
    return tensors


def _first_nested(content: Mapping[Any, Any], keys: Sequence[str]) -> str | None:
    """Returns the first key that holds a dictionary or a module."""
    return next((key for key in keys if isinstance(_state_dict(content.get(key)), Mapping)), None)


def _other_sets(content: Mapping[Any, Any], used: str) -> list[str]:
    """Returns the keys of other dictionaries with as many tensors as the one that is used."""
    least = _count_tensors(content[used]) / 2
    others = []
    for key, value in content.items():
        if key != used and _count_tensors(value) > least:
            others.append(str(key))
    return others


def _count_tensors(content: object) -> int:
    values = _state_dict(content)
    if not isinstance(values, Mapping):
        return 0
    return sum(isinstance(value, torch.Tensor) for value in values.values())


def _chosen_set(content: object, name: str) -> object:
    """Returns the value of a key.

    Raises:
        FseftError: There is no such key.
    """
    values = content if isinstance(content, Mapping) else {}
    if name not in values:
        sets = [str(key) for key, value in values.items() if _count_tensors(value)]
        raise FseftError(
            f"has no set of weights {name!r}",
            hint=f"It has {', '.join(sets)}." if sets else "It has one set only.",
        )
    return _state_dict(values[name])


def _state_dict(content: object) -> object:
    """Returns the state dict of a pickled module; other content is returned as it is."""
    return content.state_dict() if isinstance(content, torch.nn.Module) else content


def strip_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Maps each name to the name without the prefixes that most names have.

    Examples:
        >>> strip_prefixes(["module.a", "module.b", "c"])
        {'module.a': 'a', 'module.b': 'b', 'c': 'c'}
    """
    stripped = {name: name for name in names}
    while prefix := _common_prefix(list(stripped.values())):
        stripped = {name: short.removeprefix(prefix) for name, short in stripped.items()}
    return stripped


def _common_prefix(names: list[str]) -> str:
    """Returns the prefix of `PREFIXES` that more than half of the names have, or an empty text."""
    for prefix in PREFIXES:
        if 2 * sum(name.startswith(prefix) for name in names) > len(names):
            return prefix
    return ""


def matching_checkpoints(
    names: Iterable[str], checkpoints: Mapping[str, CheckpointSpec]
) -> list[str]:
    """Returns the models whose public checkpoint has such tensor names.

    Args:
        names: Tensor names of a file.
        checkpoints: Description of the public checkpoint by model.
    """
    stripped = strip_prefixes(names)
    candidates = {*stripped, *stripped.values()}

    def occurs(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in candidates)

    return [
        model
        for model, checkpoint in checkpoints.items()
        if all(map(occurs, checkpoint.marks)) and not any(map(occurs, checkpoint.foreign))
    ]


def match_state_dict(
    tensors: Mapping[str, Tensor], checkpoint: CheckpointSpec, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], LoadReport]:
    """Maps the tensors of a file to those of a network.

    Args:
        tensors: Tensors of the file, unwrapped.
        checkpoint: Describes the tensor names of the file.
        state: The network's state dict with `keep_vars=True`, whose values are not used.

    Returns:
        Tensors by the network's names, with the dtype of the file, and a report on all of them.

    Raises:
        FseftError: A tensor that the file must contain is missing or has another shape.
    """
    short_names = strip_prefixes(tensors)
    targets = _rename_all(short_names, checkpoint)
    _require_unique(targets.values())
    converted = {target: tensors[name] for name, target in targets.items()}
    if checkpoint.convert:
        converted = import_object(checkpoint.convert)(converted)
    _require_shapes(converted, state)
    _require_coverage(converted, checkpoint.covers, state)
    selected = {name: converted[name] for name in state if name in converted}
    changed = [name for name in targets if targets[name] != short_names[name]]
    return selected, LoadReport(
        loaded=len(selected),
        parameters=sum(tensor.numel() for tensor in _parameters(state, selected)),
        renamed=sum(targets[name] in selected for name in changed),
        ignored=_groups(short_names[name] for name in tensors if name not in targets),
        unused=_groups(name for name in converted if name not in state),
        missing=_groups(_missing(state, converted)),
    )


def _parameters(state: Mapping[str, Tensor], names: Iterable[str]) -> list[Tensor]:
    """Returns the parameters, not the buffers, of these names."""
    return [state[name] for name in names if isinstance(state[name], torch.nn.Parameter)]


def _missing(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of the network's tensors that are absent.

    Integer tensors are counters and index tables, which the network creates itself.
    """
    absent = [name for name in state if name not in tensors]
    return [name for name in absent if state[name].is_floating_point()]


def _require_unique(targets: Iterable[str]) -> None:
    """Raises an error if two tensors of a file have the same name in the network."""
    repeated = [target for target, count in Counter(targets).items() if count > 1]
    if repeated:
        raise FseftError(
            f"contains {repeated[0]} twice, under different names",
            hint="Use a file with one set of weights.",
        )


def _require_shapes(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raises an error if a tensor has another shape than the network's."""
    common = [name for name in tensors if name in state]
    mismatched = [name for name in common if tensors[name].shape != state[name].shape]
    if mismatched:
        name = mismatched[0]
        raise FseftError(
            f"{pluralise(len(mismatched), 'tensor')} of another shape: {name} is "
            f"{_shape(tensors[name])}, the network's is {_shape(state[name])}",
            hint="The file is for another width, or for other classes.",
        )


def _require_coverage(
    tensors: Mapping[str, Tensor], pattern: str, state: Mapping[str, Tensor]
) -> None:
    """Raises an error if a tensor of the network that matches the pattern is missing."""
    covered = {name: state[name] for name in state if re.search(pattern, name)}
    missing = _missing(covered, tensors)
    if missing:
        raise FseftError(
            f"contains {len(covered) - len(missing)} of the {len(covered)} required tensors "
            f"(missing: {_list_groups(missing)})",
            hint="Use the complete public file.",
        )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _rename_all(short_names: Mapping[str, str], checkpoint: CheckpointSpec) -> dict[str, str]:
    """Maps the names of the file to those of the network, without ignored tensors."""
    targets = {}
    for name, target in short_names.items():
        if _matches(target, checkpoint.ignored):
            continue
        for pattern, replacement in checkpoint.renames:
            target = re.sub(pattern, replacement, target)
        targets[name] = target
    return targets


def _groups(names: Iterable[str]) -> dict[str, int]:
    """Counts the names by their first part, the most frequent first."""
    return dict(Counter(name.split(".")[0] for name in names).most_common())


def _list_groups(names: Sequence[str]) -> str:
    """Lists the most frequent first parts of names for a message."""
    counts = [f"{group} {count}" for group, count in _groups(names).items()]
    if len(counts) > _MAX_GROUPS:
        counts[_MAX_GROUPS:] = ["..."]
    return ", ".join(counts)


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def output_fingerprint(outputs: Tensor) -> dict[str, Any]:
    """Returns statistics of a network's output on a fixed input, to detect a changed function.

    Args:
        outputs: Of any shape.

    Returns:
        `mean`, `std`, and 16 `values` at regular positions.
    """
    values = outputs.detach().double()
    stride = max(1, values.numel() // 16)
    samples = values.flatten()[::stride][:16]
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "values": [float(value) for value in samples],
    }
