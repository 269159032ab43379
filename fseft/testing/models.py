"""What every foundation model must keep, and its checks as parameters of a test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.anatomy.vocabulary import normalise_name
from fseft.errors import FseftError
from fseft.learn.networks.backbone import get_architecture, validate_hparams
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
    """The checks of a foundation model's entry, to be called one by one; no weights are needed.

    ```python
    @pytest.mark.parametrize("check", model_checks("my-model"))
    def test_my_model(check):
        check()
    ```

    Args:
        name: Its name in the registry.
        xfail: Check -> why the model cannot keep it; it must then fail.

    Raises:
        ValueError: There is no check of a name in `xfail`.
    """
    return parameters(name, CHECKS, Entry(name), xfail)


@dataclass(frozen=True)
class Entry:
    """A foundation model, as a plugin offers it."""

    name: str

    @property
    def spec(self) -> FoundationModelSpec:
        """The entry."""
        spec = registry().resolve("model", self.name).spec
        assert isinstance(spec, FoundationModelSpec)
        return spec

    @property
    def card(self) -> ModelCard:
        """What the model is."""
        return self.spec.card

    @property
    def checkpoint(self) -> CheckpointSpec | None:
        """The public file with its weights, if they do not come with the package."""
        return self.spec.checkpoint


def is_called_as_its_card_says(entry: Entry) -> None:
    """Entry and card have one name, and the card survives JSON, as it is stored with the weights."""
    assert entry.card.name == entry.spec.name
    stored = entry.card.model_dump_json()
    assert ModelCard.model_validate_json(stored).model_dump_json() == stored


def sets_what_its_network_has(entry: Entry) -> None:
    """The architecture is known, and accepts the hyper-parameters of the card."""
    try:
        validate_hparams(get_architecture(entry.card.architecture), entry.card.hparams)
    except FseftError as error:
        raise AssertionError(str(error)) from error


def expects_patches_that_its_network_takes(entry: Entry) -> None:
    """A patch of the contract is a multiple of what the network shrinks by, and not too small."""
    made, patch = get_architecture(entry.card.architecture), entry.card.contract.patch_size
    assert all(
        side % divisor == 0 for side, divisor in zip(patch or (), made.divisor, strict=bool(patch))
    )
    assert all(
        side >= least for side, least in zip(patch or (), made.minimum_patch, strict=bool(patch))
    )


def tells_its_classes_apart(entry: Entry) -> None:
    """No class comes twice, in whatever words, and the background is none."""
    meant = [normalise_name(name) for name in entry.card.classes]
    assert [name for name in meant if meant.count(name) > 1] == []
    assert "background" not in meant


def says_where_its_weights_are(entry: Entry) -> None:
    """They come with the package, or from a public file: at an address, or from the owner's page."""
    checkpoint = entry.checkpoint
    assert entry.spec.factory or checkpoint
    if checkpoint:
        assert (checkpoint.url or entry.card.home).startswith("https://")
        assert checkpoint.marks, "by no mark can the file be told from those of others"


def names_what_there_is(entry: Entry) -> None:
    """Patterns can be read, and functions imported."""
    checkpoint = entry.checkpoint
    if checkpoint is None:
        return
    for pattern in (*checkpoint.marks, *checkpoint.foreign, *checkpoint.ignored, checkpoint.covers):
        assert _reads(pattern, ""), pattern
    for pattern, replacement in checkpoint.renames:
        assert _reads(pattern, replacement), (pattern, replacement)
    for function in filter(None, (checkpoint.convert, checkpoint.card)):
        assert callable(import_object(function)), function


def _reads(pattern: str, replacement: str) -> bool:
    try:
        re.sub(pattern, replacement, "")
    except (re.error, IndexError):
        return False
    return True


def loads_no_torch_before_it_is_chosen(entry: Entry) -> None:
    """The plugin that offers the model is listed without torch."""
    assert_listed_without_torch("model", entry.name)


CHECKS: tuple[Callable[[Entry], None], ...] = (
    is_called_as_its_card_says,
    sets_what_its_network_has,
    expects_patches_that_its_network_takes,
    tells_its_classes_apart,
    says_where_its_weights_are,
    names_what_there_is,
    loads_no_torch_before_it_is_chosen,
)
