"""Combination of adapters in weight space: weighted means, and a weaker effect of one.

A weighted mean of networks that share a backbone is W = W0 + sum of w_i (W_i - W0). It is computed
from the merged weights, so that it is exact for every method whose changes merge. Low-rank deltas
of LoRA are combined as matrices, s B A, and factorised again by SVD, exact up to the sum of the
ranks (model soups: Wortsman et al. 2022, arXiv:2203.05482).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from fseft.errors import FseftError
from fseft.experiment.settings import ConfiguredMethod
from fseft.learn.adapters.adapter_layers import LowRank
from fseft.model_zoo.adapter_file import (
    apply_method,
    load_adapter_backbone,
    load_adapter_onto,
    read_tensors,
    versions,
)
from fseft.model_zoo.tensor_checks import require_finite
from fseft.registry import registry
from fseft.schemas import ScanRange
from fseft.training_config import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from fseft.learn.adapters.adapted_network import AdaptedNetwork
    from fseft.model_zoo.adapter_file import OpenAdapter
    from fseft.schemas import Manifest, PartMode
    from fseft.schemas.base import Range

T = TypeVar("T")

LORA, FULL = "fseft:lora", "fseft:full"
_SAME = (
    *("backbone_sha256", "architecture", "hparams", "preprocessing", "channels", "labels"),
    "writing_order",
)
"""Fields of the manifest in which adapters that are combined must agree."""
_OF_ONE_TRAINING = (
    *("selection", "strength", "soup", "origin", "unlabelled"),
    "cross_validation",
)
"""Fields of the manifest with choices and scores of one training, which hold for no combination."""


@dataclass(frozen=True)
class Combination:
    """The tensors and the manifest of a new adapter.

    Attributes:
        tensors: As `AdaptedNetwork.state_dict` returns them.
        manifest: Its description.
        error: Relative error of the low-rank deltas, in the Frobenius norm; 0 if it is exact.
    """

    tensors: dict[str, Tensor]
    manifest: Manifest
    error: float = 0.0


def combine_adapters(
    adapters: Sequence[OpenAdapter], weights: Sequence[float], *, rank: int | None = None
) -> Combination:
    """Combines adapters of one backbone; the rest to a sum of 1 is the weight of the backbone.

    Args:
        adapters: Adapters with equal structures and preprocessing.
        weights: Weight of each adapter, from 0 on, with a sum of at most 1.
        rank: Rank of the result, for adapters of plain LoRA. Default: the sum of their ranks.

    Raises:
        FseftError: The adapters differ in what must be equal, their changes do not merge, or a
            rank is passed and they are not plain LoRA; or a value is not finite.
    """
    _check_same(adapters)
    for adapter in adapters:
        require_finite(read_tensors(adapter.file), adapter.path)
    is_lora = _are_plain_lora(adapters)
    if rank is not None and not is_lora:
        cause = "only adapters of plain LoRA with equal settings have a rank"
        raise FseftError(cause, file=adapters[0].path, hint="Leave the rank out.")
    return _combine_lora(adapters, weights, rank) if is_lora else _average(adapters, weights)


def _check_same(adapters: Sequence[OpenAdapter]) -> None:
    first = adapters[0]
    for adapter in adapters[1:]:
        for field in _SAME:
            if getattr(adapter.manifest, field) != getattr(first.manifest, field):
                words = field.replace("_", " ")
                raise FseftError(
                    f"differs from {first.path} in {words}",
                    file=adapter.path,
                    hint="Combine adapters of one model and one plan, for the same structures.",
                )


def _are_plain_lora(adapters: Sequence[OpenAdapter]) -> bool:
    """Returns whether all adapters have deltas s B A on the same layers, and no other deltas."""
    settings = set()
    for adapter in adapters:
        config, modes = adapter.method.config, adapter.manifest.part_modes
        if adapter.method.name != LORA or "low-rank" in modes.values() or "new" in modes.values():
            return False
        others = config.model_dump_json(exclude={"rank", "alpha"})
        settings.add((others, *modes.values()))
        if getattr(config, "dora", True) or getattr(config, "init", "") != "zero":
            return False
    return len(settings) == 1


def _applied(adapter: OpenAdapter, method: ConfiguredMethod) -> AdaptedNetwork:
    """Returns the backbone of an adapter, with its head, under a method; nothing is loaded."""
    model, manifest = load_adapter_backbone(adapter), adapter.manifest
    model.put_head(list(manifest.labels), seed=manifest.init_seed)
    return apply_method(
        model.architecture, model.network, method, manifest.init_seed, model.missing_keys
    )


def _average(adapters: Sequence[OpenAdapter], weights: Sequence[float]) -> Combination:
    """Averages merged networks; the result is an adapter of the method `full`."""
    first = adapters[0]
    spec = registry().method(FULL)
    method = ConfiguredMethod(FULL, spec, spec.config(), TrainingConfig(), "frozen", "frozen")
    adapted = _applied(first, method)
    base = adapted.network.state_dict()
    states = [base]
    for adapter in adapters:
        merged = load_adapter_onto(load_adapter_backbone(adapter), adapter).state_dict()
        if {key: item.shape for key, item in merged.items()} != {
            key: item.shape for key, item in base.items()
        }:
            cause = f"changes of the method {adapter.manifest.method.name!r} do not merge"
            hint = "Combine adapters whose changes are deltas of weights, such as lora or affine."
            raise FseftError(cause, file=adapter.path, hint=hint)
        states.append(merged)
    adapted.network.load_state_dict(weighted_sum(states, [1 - sum(weights), *weights]))
    return _described(adapters, adapted, method)


def weighted_sum(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Returns the weighted sum of tensors of equal names, computed in float64.

    Args:
        states: Name -> tensor; whole numbers, such as counters, are those of the last one.
        weights: Weight of each.
    """
    total = {}
    for name, last in states[-1].items():
        if not last.is_floating_point():
            total[name] = last
            continue
        terms = [w * state[name].double() for w, state in zip(weights, states, strict=True) if w]
        total[name] = sum(terms, torch.zeros_like(last, dtype=torch.float64)).to(last.dtype)
    return total


def _combine_lora(
    adapters: Sequence[OpenAdapter], weights: Sequence[float], rank: int | None
) -> Combination:
    """Combines low-rank deltas as matrices; the other trained tensors are averaged."""
    layers = [_deltas(_loaded(adapter)) for adapter in adapters]
    if rank is None:
        rank = sum(getattr(adapter.method.config, "rank", 0) for adapter in adapters)
    limit = max(min(len(item.b), item.a.shape[1]) for item in layers[0].values())
    method = _with_rank(adapters[0].method, min(rank, limit))
    target = _applied(adapters[0], method)
    tensors, error = _combined_deltas(_deltas(target), layers, weights)
    target.load_state_dict({**_other_tensors(target, adapters, weights), **tensors})
    return _described(adapters, target, method, error)


def _combined_deltas(
    target: Mapping[str, LowRank],
    layers: Sequence[Mapping[str, LowRank]],
    weights: Sequence[float],
) -> tuple[dict[str, Tensor], float]:
    """Returns A and B of all deltas of the result, and their relative error."""
    tensors = {}
    errors, norms = [0.0], [0.0]
    for name, delta in target.items():
        parts = [layer[name] for layer in layers]
        matrix = _weighted_matrix(parts, weights)
        a, b = factorise(matrix, len(delta.a), delta.scale)
        tensors[f"{name}.a"] = a
        tensors[f"{name}.b"] = b
        product = delta.scale * b.double() @ a.double()
        errors.append(_norm(matrix - product))
        norms.append(_norm(matrix))
    total = math.hypot(*norms) or 1.0
    return tensors, math.hypot(*errors) / total


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix))


def _loaded(adapter: OpenAdapter) -> AdaptedNetwork:
    """Returns the network of an adapter, not merged."""
    network = _applied(adapter, adapter.method)
    network.load_state_dict(read_tensors(adapter.file))
    return network


def _deltas(network: AdaptedNetwork) -> dict[str, LowRank]:
    modules = network.network.named_modules()
    return {name: module for name, module in modules if isinstance(module, LowRank)}


@torch.no_grad()
def _weighted_matrix(layers: Sequence[LowRank], weights: Sequence[float]) -> Tensor:
    """Returns the sum of w s B A, in float64."""
    total = torch.zeros(len(layers[0].b), layers[0].a.shape[1], dtype=torch.float64)
    for weight, layer in zip(weights, layers, strict=True):
        factor = weight * layer.scale
        total += factor * layer.b.double() @ layer.a.double()
    return total


def factorise(matrix: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """Returns A and B of the given rank for which s B A is nearest to a matrix.

    Args:
        matrix: (rows, columns), float64.
        rank: Rank r.
        scale: Factor s.

    Returns:
        A (r, columns) and B (rows, r), float32.
    """
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    root = (s[:rank] / scale).sqrt()
    a = root[:, None] * v[:rank]
    b = u[:, :rank] * root
    return a.float(), b.float()


def _other_tensors(
    target: AdaptedNetwork, adapters: Sequence[OpenAdapter], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Returns the weighted sum of the tensors outside low-rank deltas: the head, the decoder."""
    prefixes = tuple(f"{name}." for name in _deltas(target))
    tensors = target.state_dict()
    initial = {name: tensors[name] for name in tensors if not name.startswith(prefixes)}
    states: list[Mapping[str, Tensor]] = [initial]
    for adapter in adapters:
        trained = read_tensors(adapter.file)
        states.append({name: trained[name] for name in initial})
    return weighted_sum(states, [1 - sum(weights), *weights])


def _with_rank(method: ConfiguredMethod, rank: int) -> ConfiguredMethod:
    """Returns LoRA with another rank and the same scale of its deltas."""
    config: Any = method.config
    power = 0.5 if config.rslora else 1.0
    alpha = config.alpha * (rank / config.rank) ** power
    changed = config.model_copy(update={"rank": rank, "alpha": alpha})
    modes: dict[str, PartMode] = method.part_modes
    return ConfiguredMethod(
        LORA, method.spec, changed, method.training, modes["decoder"], modes["bottleneck"]
    )


def _described(
    adapters: Sequence[OpenAdapter],
    network: AdaptedNetwork,
    method: ConfiguredMethod,
    error: float = 0.0,
) -> Combination:
    """Returns the tensors of a network, with a manifest of what is true of all adapters."""
    manifests = [adapter.manifest for adapter in adapters]
    provenance = registry().provenance("method", method.name)
    update = {
        "method": provenance,
        "config": method.config.model_dump(mode="json"),
        **method.part_modes,
        **joined_training_data(manifests),
        "seed": _common([item.seed for item in manifests]),
        "mirror": all(item.mirror for item in manifests),
        "trained_parameters": sum(p.numel() for _, p in network.trainable_parameters()),
        "versions": versions(),
        "plugins": _distinct([(provenance,), *(item.plugins for item in manifests)]),
        **dict.fromkeys(_OF_ONE_TRAINING),
    }
    return Combination(network.state_dict(), manifests[0].model_copy(update=update), error)


def joined_training_data(manifests: Sequence[Manifest]) -> dict[str, Any]:
    """Returns the fields of a manifest on the training cases, of several adapters together.

    Cases are distinguished by their scans; where an earlier version did not store those, by dataset
    and name.
    """
    images = _distinct([item.support_images for item in manifests])
    has_all_images = all(len(item.support_images) == item.k for item in manifests)
    rules = {item.missing_label for item in manifests}
    cases = _distinct([[(item.dataset, name) for name in item.support] for item in manifests])
    return {
        "support": tuple(dict.fromkeys(name for _, name in cases)),
        "support_images": images,
        "dataset": ", ".join(_distinct([item.dataset.split(", ") for item in manifests])),
        "k": len(images) if has_all_images else len(cases),
        "missing_label": "unannotated" if "unannotated" in rules else "absent",
        "scans": _joined_range([item.scans for item in manifests]),
    }


def _distinct(groups: Iterable[Iterable[T]]) -> tuple[T, ...]:
    """Returns the items of all groups, each once, in order."""
    return tuple(dict.fromkeys(item for group in groups for item in group))


def _common(values: Sequence[T]) -> T | None:
    """Returns the value that all have; None if they differ."""
    first, *others = values
    return first if all(value == first for value in others) else None


def _joined_range(ranges: Sequence[ScanRange | None]) -> ScanRange | None:
    """Returns the range of the training scans of all; None if that of one is not known."""
    known = [item for item in ranges if item is not None]
    if len(known) < len(ranges):
        return None
    spacings, extents = zip(*((item.spacing_mm, item.extent_mm) for item in known), strict=True)
    return ScanRange(spacing_mm=_hull(spacings), extent_mm=_hull(extents))


def _hull(ranges: Sequence[Range]) -> Range:
    lows, highs = zip(*ranges, strict=True)
    return min(lows), max(highs)
