"""Checks of foundation models, as parameters of a test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import normalise_name
from fseft.errors import FseftError
from fseft.learn.networks.backbone import get_architecture, patch_limits, validate_hparams
from fseft.plugin import FoundationModelSpec
from fseft.registry import import_object, registry
from fseft.schemas import ModelCard
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.parameters import parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from _pytest.mark import ParameterSet

    from fseft.plugin import CheckpointSpec


def model_checks(name: str, *, xfail: Mapping[str, str] | None = None) -> list[ParameterSet]:
    """Returns the checks of a model's entry, as parameters of a test that calls each.

    No weights are needed.

    ```python
    @pytest.mark.parametrize("check", model_checks("my-model"))
    def test_my_model(check):
        check()
    ```

    Args:
        name: Of the model in the registry.
        xfail: Reason for each check that must fail.

    Raises:
        ValueError: `xfail` contains an unknown check.
    """
    return parameters(name, CHECKS, Entry(name), xfail)


@dataclass(frozen=True)
class Entry:
    """The entry of a foundation model in the registry."""

    name: str

    @property
    def spec(self) -> FoundationModelSpec:
        """The spec."""
        spec = registry().resolve("model", self.name).spec
        assert isinstance(spec, FoundationModelSpec)
        return spec

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.spec.card

    @property
    def checkpoint(self) -> CheckpointSpec | None:
        """The public file of the weights, if they are not part of the package."""
        return self.spec.checkpoint


def has_the_name_of_its_card(entry: Entry) -> None:
    """Entry and card have the same name, and the card can be stored as JSON."""
    assert entry.card.name == entry.spec.name
    stored = entry.card.model_dump_json()
    assert ModelCard.model_validate_json(stored).model_dump_json() == stored


def has_valid_hparams(entry: Entry) -> None:
    """The architecture is registered, and accepts the hyper-parameters of the card."""
    try:
        validate_hparams(get_architecture(entry.card.architecture), entry.card.hparams)
    except FseftError as error:
        raise AssertionError(str(error)) from error


def has_a_valid_patch_size(entry: Entry) -> None:
    """The patch of the contract is divisible as the architecture requires, and large enough."""
    architecture = get_architecture(entry.card.architecture)
    contract, limits = entry.card.contract, patch_limits(architecture, entry.card.hparams)
    if contract.patch_size:
        assert limits.nearest(contract.patch_size) == contract.patch_size
    if contract.window_size:
        assert limits.divisor == (1, 1, 1), "a scan of any size must be an input of the network"


def has_distinct_classes(entry: Entry) -> None:
    """Class names are distinct after normalisation, and the background is not among them."""
    names = [normalise_name(name) for name in entry.card.classes]
    assert [name for name in names if names.count(name) > 1] == []
    assert "background" not in names


def has_a_source_of_weights(entry: Entry) -> None:
    """The weights are part of the package, or in a public file that its content identifies."""
    checkpoint = entry.checkpoint
    assert entry.spec.factory or checkpoint
    if checkpoint:
        assert (checkpoint.url or entry.card.home).startswith("https://")
        assert checkpoint.marks, "no mark distinguishes the file from those of other models"


def has_valid_patterns_and_functions(entry: Entry) -> None:
    """Regular expressions compile, and functions can be imported."""
    checkpoint = entry.checkpoint
    if checkpoint is None:
        return
    for pattern in (*checkpoint.marks, *checkpoint.foreign, *checkpoint.ignored, checkpoint.covers):
        assert _is_valid(pattern, ""), pattern
    for pattern, replacement in checkpoint.renames:
        assert _is_valid(pattern, replacement), (pattern, replacement)
    for function in filter(None, (checkpoint.convert, checkpoint.card)):
        assert callable(import_object(function)), function


def _is_valid(pattern: str, replacement: str) -> bool:
    try:
        re.sub(pattern, replacement, "")
    except (re.error, IndexError):
        return False
    return True


def is_listed_without_torch(entry: Entry) -> None:
    """Listing the plugin that provides the model does not import torch."""
    assert_listed_without_torch("model", entry.name)


CHECKS: tuple[Callable[[Entry], None], ...] = (
    has_the_name_of_its_card,
    has_valid_hparams,
    has_a_valid_patch_size,
    has_distinct_classes,
    has_a_source_of_weights,
    has_valid_patterns_and_functions,
    is_listed_without_torch,
)
