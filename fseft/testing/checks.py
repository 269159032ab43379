"""What every method must keep, one function each."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import head_names
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.activation_checkpointing import (
    checkpoint_activations,
    checkpointable_blocks,
)
from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.training.progress import Epoch
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.method_harness import CLASSES, MethodHarness, exact
from fseft.testing.other_process import installed, output_elsewhere
from fseft.testing.resume import goes_on_after_a_kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from fseft.learn.networks.roles import Architecture, Target

CASES = 3
"""k, where a method asks for it."""
DEAD = 1e-12
"""A gradient in double precision that is smaller than this part of the largest is none."""


def starts_as_the_base(subject: MethodHarness) -> None:
    """Before training the output is the base's."""
    subject.assert_close(subject.output(subject.adapted().network), subject.base_output)


def starts_the_same_for_the_same_seed(subject: MethodHarness) -> None:
    """All that is drawn comes from the generator."""
    one, other = subject.adapted().state_dict(), subject.adapted().state_dict()
    assert {name for name, tensor in one.items() if not torch.equal(tensor, other[name])} == set()


def changes_only_what_it_trains(subject: MethodHarness) -> None:
    """What changes in training is declared, and saved."""
    before = dict(subject.adapted().network.named_parameters())
    after = subject.trained.network.named_parameters()
    declared = {name for name, _ in subject.trained.trainable_parameters()}
    changed = {name for name, tensor in after if not torch.equal(tensor, before[name])}
    assert bool(changed) == subject.spec.trains
    assert changed <= declared <= subject.trained.state_dict().keys()


def trains_where_it_selects(subject: MethodHarness) -> None:
    """What is trained belongs to a selected target, the decoder if that is trained, or the head; selecting is pure."""
    network = subject.network()
    before = [(name, p.requires_grad) for name, p in network.named_parameters()]
    targets = subject.method.select(subject.architecture, network)
    assert [(name, p.requires_grad) for name, p in network.named_parameters()] == before
    parts = ("head",) if subject.decoder == "frozen" else ("head", "decoder")
    targets += [target for target in subject.architecture.targets(network) if target.part in parts]
    homes = tuple(f"{target.name}." for target in targets)
    assert [
        name for name, _ in subject.trained.trainable_parameters() if not name.startswith(homes)
    ] == []


def leaves_features_alone_as_a_black_box(subject: MethodHarness) -> None:
    """Declared as black-box, it changes nothing before the head: features are kept, and shared with other adapters."""
    if subject.spec.access != "black-box" or subject.decoder != "frozen":
        return
    homes = tuple(f"{name}." for name in head_names(subject.architecture, subject.trained.network))
    assert [
        name for name, _ in subject.trained.trainable_parameters() if not name.startswith(homes)
    ] == []
    with torch.inference_mode():
        before, after = (
            subject.architecture.features(n, subject.x)
            for n in (subject.network(), subject.trained.network)
        )
    assert torch.equal(before, after)


def trains_what_it_adds(subject: MethodHarness) -> None:
    """Something of each module that is put into the network is trained."""
    added = {
        n: m for n, m in subject.adapted().network.named_modules() if isinstance(m, AdapterModule)
    }
    assert [
        name
        for name, module in added.items()
        if not any(p.requires_grad for p in module.parameters())
    ] == []


def answers_all_hooks(subject: MethodHarness) -> None:
    """Every hook of training returns a value of the documented type."""
    adapted, epoch = subject.adapted(), Epoch(1, 0.5, 0.01, 1.0, 0.5)
    adapted.calibrate(iter([subject.x] * CASES))
    held_out = set(adapted.held_out_cases(1, CASES))
    assert held_out < set(range(CASES)), "one support case at least must be left to draw"
    with torch.no_grad():
        adapted.on_epoch_validation(epoch, CASES, lambda _, count: subject.crops(count))
    penalty = adapted.regularizer()
    assert penalty is None or penalty.numel() == 1
    state = adapted.training_state()
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    adapted.load_training_state(state)
    assert all(isinstance(loss, float) for loss in adapted.plateau_losses([0.5, 0.25]))
    adapted.finish()
    notes = adapted.notes()
    assert isinstance(notes, list | tuple), "a single line would be read letter by letter"
    assert all(isinstance(note, str) for note in notes)
    assert all(isinstance(tensor, torch.Tensor) for tensor in adapted.state_dict().values())


def gives_every_tensor_a_gradient(subject: MethodHarness) -> None:
    """No gradient is missing or dead, as that of a bias or scale is which a norm layer takes away again."""
    adapted = deepcopy(subject.trained)
    exact(adapted.network)
    gradients = subject.backward(adapted)
    largest = {
        name: float(gradient.abs().max())
        for name, gradient in gradients.items()
        if gradient is not None
    }
    assert gradients.keys() - largest.keys() == set()
    assert {
        name for name, value in largest.items() if value <= DEAD * max(largest.values())
    } == set()


def keeps_the_base(subject: MethodHarness) -> None:
    """Switched off, the base weights are bit for bit what they were before training."""
    base = dict(subject.network().named_parameters())
    with subject.trained.disabled():
        for name, tensor in subject.trained.network.named_parameters():
            plain = re.sub(r"parametrizations\.(\w+)\.original$", r"\1", name)
            assert plain not in base or torch.equal(tensor, base[plain]), name


def can_be_switched_off(subject: MethodHarness) -> None:
    """Switched off, the output is the base's bit for bit; after that it is the adapted one again."""
    with subject.trained.disabled():
        off = subject.output(subject.trained.network)
    assert torch.equal(off, subject.base_output)
    assert torch.equal(subject.output(subject.trained.network), subject.trained_output)


def can_be_copied(subject: MethodHarness) -> None:
    """A deep copy does the same and shares nothing."""
    copy = deepcopy(subject.trained)
    places = [
        {p.data_ptr() for p in adapted.network.parameters()} for adapted in (copy, subject.trained)
    ]
    assert places[0] & places[1] == set()
    assert torch.equal(subject.output(copy.network), subject.trained_output)


def merges_exactly(subject: MethodHarness) -> None:
    """Folded into the weights it is the same function."""
    subject.assert_close(subject.output(deepcopy(subject.trained).merge()), subject.trained_output)


def merges_to_the_names_of_the_base(subject: MethodHarness) -> None:
    """What is merged can be loaded as any network of the architecture."""
    assert (
        deepcopy(subject.trained).merge().state_dict().keys()
        == subject.network().state_dict().keys()
    )


def comes_back_from_its_file(subject: MethodHarness) -> None:
    """What is saved, loaded on a fresh base, gives the same output bit for bit."""
    fresh = subject.adapted()
    fresh.load_state_dict(load(save(subject.trained.state_dict())))
    assert torch.equal(subject.output(fresh.network), subject.trained_output)


def comes_back_in_another_process(subject: MethodHarness) -> None:
    """What is saved holds all that there is to know: nothing hangs on this process."""
    found = installed()
    if subject.architecture_name not in found.registrations(
        "architecture"
    ) or subject.name not in found.registrations("method"):
        pytest.skip("what is offered in this process alone is not found in another one")
    subject.assert_close(output_elsewhere(subject), subject.trained_output)


def refuses_another_network(subject: MethodHarness) -> None:
    """Tensors of other names or shapes are not loaded."""
    adapted = subject.adapted()
    for tensors in (
        subject.adapted(CLASSES + 1).state_dict(),
        {**adapted.state_dict(), "zzz": torch.zeros(1)},
    ):
        with pytest.raises(FseftError, match="does not fit"):
            adapted.load_state_dict(tensors)


def runs_in_half_precision(subject: MethodHarness) -> None:
    """Under autocast to bfloat16 the gradients are finite."""
    # Without oneDNN, whose gradient of a 3x3x3 kernel on 2x2x2 voxels in bfloat16 reads memory that nobody wrote.
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        gradients = subject.backward(subject.adapted())
    assert {
        name for name, g in gradients.items() if g is not None and not g.isfinite().all()
    } == set()


def trains_with_checkpointing(subject: MethodHarness) -> None:
    """Gradients are the same where activations are computed again instead of kept."""
    kept, again = deepcopy(subject.trained), deepcopy(subject.trained)
    checkpoint_activations(checkpointable_blocks(subject.architecture, again.network))
    gradients = []
    for adapted in (kept, again):
        torch.manual_seed(0)  # of dropout, if there is some
        gradients.append(
            {name: g for name, g in subject.backward(adapted).items() if g is not None}
        )
    torch.testing.assert_close(gradients[1], gradients[0])


def says_which_role_is_missing(subject: MethodHarness) -> None:
    """On a network with a head and no other role it trains more than that, or ends with an `FseftError`.

    A linear probe under another name would mislead; methods that are declared as black-box may be one.
    """
    bare = _HeadOnly(subject.architecture)
    try:
        adapted = adapt_network(bare, subject.network(), subject.method, decoder="frozen", seed=1)
    except FseftError as error:
        assert subject.name in str(error)  # noqa: PT017 - that it is raised is not demanded
        return
    homes = tuple(f"{name}." for name in head_names(subject.architecture, adapted.network))
    more = [name for name, _ in adapted.trainable_parameters() if not name.startswith(homes)]
    assert more or not subject.spec.trains or subject.spec.access == "black-box"


class _HeadOnly:
    """An architecture that knows its head alone."""

    def __init__(self, whole: Architecture) -> None:
        self.whole = whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def targets(self, network: nn.Module) -> list[Target]:
        """The head."""
        return [target for target in self.whole.targets(network) if target.part == "head"]


def keeps_its_config(subject: MethodHarness) -> None:
    """The configuration survives JSON, as it is stored with the adapter, and unknown keys are refused."""
    config = subject.config
    assert type(config).model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="no-such-key"):
        type(config)(**{"no-such-key": 1})


def loads_no_torch_before_it_is_chosen(subject: MethodHarness) -> None:
    """The plugin that offers the method is listed without torch."""
    assert_listed_without_torch("method", subject.name)


CHECKS: tuple[Callable[[MethodHarness], None], ...] = (
    starts_as_the_base,
    starts_the_same_for_the_same_seed,
    changes_only_what_it_trains,
    trains_where_it_selects,
    leaves_features_alone_as_a_black_box,
    trains_what_it_adds,
    answers_all_hooks,
    goes_on_after_a_kill,
    gives_every_tensor_a_gradient,
    keeps_the_base,
    can_be_switched_off,
    can_be_copied,
    merges_exactly,
    merges_to_the_names_of_the_base,
    comes_back_from_its_file,
    comes_back_in_another_process,
    refuses_another_network,
    runs_in_half_precision,
    trains_with_checkpointing,
    says_which_role_is_missing,
    keeps_its_config,
    loads_no_torch_before_it_is_chosen,
)
