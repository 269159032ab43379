"""The contract of methods: one check per requirement."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import AdaptedNetwork, head_names
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.activation_checkpointing import (
    checkpoint_activations,
    checkpointable_blocks,
)
from fseft.learn.networks.adapter_module import AdapterModule
from fseft.learn.training.progress import Epoch
from fseft.testing.lazy_imports import assert_listed_without_torch
from fseft.testing.method_harness import CLASSES, MethodHarness, to_exact_precision
from fseft.testing.other_process import installed, output_in_other_process
from fseft.testing.resume import resumes_to_the_same_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from fseft.learn.networks.roles import Architecture, Target

CASES = 3
"""k, the number of training cases."""
DEAD = 1e-12
"""A gradient in double precision below this fraction of the largest one counts as zero."""


def starts_as_the_base(subject: MethodHarness) -> None:
    """Before training, the output is that of the base."""
    subject.assert_close(subject.output(subject.adapted().network), subject.base_output)


def starts_the_same_for_the_same_seed(subject: MethodHarness) -> None:
    """All random numbers come from the generator."""
    first, second = subject.adapted().state_dict(), subject.adapted().state_dict()
    assert different_tensors(first, second) == set()


def changes_only_what_it_trains(subject: MethodHarness) -> None:
    """Training changes declared parameters only, which are saved."""
    initial = dict(subject.adapted().network.named_parameters())
    final = dict(subject.trained.network.named_parameters())
    changed = different_tensors(final, initial)
    declared = trained_names(subject.trained)
    assert bool(changed) == subject.spec.trains
    assert changed <= declared <= subject.trained.state_dict().keys()


def trains_where_it_selects(subject: MethodHarness) -> None:
    """Trained parameters belong to selected targets, the head, or a trained decoder.

    Selecting does not change the network.
    """
    network = subject.network()
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    selected = subject.method.select(subject.architecture, network)
    assert [parameter.requires_grad for parameter in network.parameters()] == trainable
    parts = ("head",) if subject.decoder == "frozen" else ("head", "decoder")
    targets = subject.architecture.targets(network)
    homes = selected + [target for target in targets if target.part in parts]
    assert trained_outside([target.name for target in homes], subject.trained) == []


def keeps_features_unchanged_as_a_black_box(subject: MethodHarness) -> None:
    """A method with black-box access changes nothing before the head.

    Features are cached, and shared with other adapters.
    """
    if subject.spec.access != "black-box" or subject.decoder != "frozen":
        return
    heads = head_names(subject.architecture, subject.trained.network)
    assert trained_outside(heads, subject.trained) == []
    with torch.inference_mode():
        base = subject.architecture.features(subject.network(), subject.x)
        adapted = subject.architecture.features(subject.trained.network, subject.x)
    assert torch.equal(base, adapted)


def trains_what_it_adds(subject: MethodHarness) -> None:
    """Each added module has a trained parameter."""
    for name, module in subject.adapted().network.named_modules():
        assert is_trained(module) or not isinstance(module, AdapterModule), name


def hooks_return_documented_types(subject: MethodHarness) -> None:
    """Every hook of training returns a value of the documented type."""
    adapted, epoch = subject.adapted(), Epoch(1, 0.5, 0.01, 1.0, 0.5)
    adapted.calibrate(iter([subject.x] * CASES))
    held_out = set(adapted.held_out_cases(1, CASES))
    assert held_out < set(range(CASES)), "at least one training case must remain to train on"
    with torch.no_grad():
        adapted.on_epoch_validation(epoch, CASES, lambda _, count: subject.crops(count))
    penalty = adapted.regularizer()
    assert penalty is None or penalty.numel() == 1
    state = adapted.training_state()
    assert are_tensors(state)
    adapted.load_training_state(state)
    assert all(isinstance(loss, float) for loss in adapted.plateau_losses([0.5, 0.25]))
    adapted.finish()
    notes = adapted.notes()
    assert isinstance(notes, list | tuple), "a single string would be read as a list of letters"
    assert all(isinstance(note, str) for note in notes)
    assert are_tensors(adapted.state_dict())


def gives_every_tensor_a_gradient(subject: MethodHarness) -> None:
    """No gradient is missing or zero, as that of a scale or bias that a norm layer cancels."""
    adapted = deepcopy(subject.trained)
    to_exact_precision(adapted.network)
    gradients = subject.backward(adapted)
    present = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    assert gradients.keys() - present.keys() == set()
    largest = {name: float(gradient.abs().max()) for name, gradient in present.items()}
    limit = DEAD * max(largest.values(), default=0)
    assert {name for name, value in largest.items() if value <= limit} == set()


def restores_the_base_weights(subject: MethodHarness) -> None:
    """Switched off, the base weights are bit for bit those before training."""
    base = dict(subject.network().named_parameters())
    with subject.trained.disabled():
        for name, tensor in subject.trained.network.named_parameters():
            plain = re.sub(r"parametrizations\.(\w+)\.original$", r"\1", name)
            assert plain not in base or torch.equal(tensor, base[plain]), name


def can_be_switched_off(subject: MethodHarness) -> None:
    """Switched off, the output is that of the base bit for bit; afterwards, the adapted one."""
    with subject.trained.disabled():
        output = subject.output(subject.trained.network)
    assert torch.equal(output, subject.base_output)
    assert torch.equal(subject.output(subject.trained.network), subject.trained_output)


def can_be_copied(subject: MethodHarness) -> None:
    """A deep copy computes the same and shares no memory."""
    copy = deepcopy(subject.trained)
    addresses = [
        {p.data_ptr() for p in adapted.network.parameters()} for adapted in (copy, subject.trained)
    ]
    assert addresses[0] & addresses[1] == set()
    assert torch.equal(subject.output(copy.network), subject.trained_output)


def merges_exactly(subject: MethodHarness) -> None:
    """Merged into the weights, the function is the same."""
    merged = deepcopy(subject.trained).merge()
    subject.assert_close(subject.output(merged), subject.trained_output)


def merges_to_the_names_of_the_base(subject: MethodHarness) -> None:
    """A merged network loads as any network of the architecture."""
    merged = deepcopy(subject.trained).merge()
    assert merged.state_dict().keys() == subject.network().state_dict().keys()


def loads_from_its_file(subject: MethodHarness) -> None:
    """Saved and loaded on a fresh base, the output is the same bit for bit."""
    fresh = subject.adapted()
    fresh.load_state_dict(load(save(subject.trained.state_dict())))
    assert torch.equal(subject.output(fresh.network), subject.trained_output)


def loads_in_another_process(subject: MethodHarness) -> None:
    """The saved tensors are complete: nothing depends on the process that trained."""
    registry = installed()
    architectures, methods = (registry.registrations(kind) for kind in ("architecture", "method"))
    if subject.architecture_name not in architectures or subject.name not in methods:
        pytest.skip("registered in this process only")
    subject.assert_close(output_in_other_process(subject), subject.trained_output)


def refuses_another_network(subject: MethodHarness) -> None:
    """Tensors of other names or shapes are not loaded."""
    adapted = subject.adapted()
    other_shapes = subject.adapted(CLASSES + 1).state_dict()
    other_names = {**adapted.state_dict(), "zzz": torch.zeros(1)}
    for tensors in (other_shapes, other_names):
        with pytest.raises(FseftError, match="does not fit"):
            adapted.load_state_dict(tensors)


def runs_in_half_precision(subject: MethodHarness) -> None:
    """Under autocast to bfloat16, the gradients are finite."""
    # Without oneDNN: its gradient of a 3x3x3 kernel on 2x2x2 voxels in bfloat16 reads
    # uninitialised memory.
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", False)
        gradients = subject.backward(subject.adapted())
    for name, gradient in gradients.items():
        assert gradient is None or gradient.isfinite().all(), name


def trains_with_checkpointing(subject: MethodHarness) -> None:
    """Gradients are the same with activation checkpointing."""
    stored, recomputed = deepcopy(subject.trained), deepcopy(subject.trained)
    blocks = checkpointable_blocks(subject.architecture, recomputed.network)
    checkpoint_activations(blocks)
    gradients = []
    for adapted in (stored, recomputed):
        torch.manual_seed(0)  # for dropout
        named = subject.backward(adapted).items()
        gradients.append({name: gradient for name, gradient in named if gradient is not None})
    torch.testing.assert_close(gradients[1], gradients[0])


def refuses_a_network_without_its_layers(subject: MethodHarness) -> None:
    """On a network whose only target is the head, the method trains more than the head or fails.

    A linear probe under another name would mislead; black-box methods may be one.
    """
    architecture = _HeadOnly(subject.architecture)
    network = subject.network()
    try:
        adapted = adapt_network(architecture, network, subject.method, decoder="frozen", seed=1)
    except FseftError as error:
        assert subject.name in str(error)  # noqa: PT017 - an error is optional
        return
    more = trained_outside(head_names(subject.architecture, adapted.network), adapted)
    assert more or not subject.spec.trains or subject.spec.access == "black-box"


class _HeadOnly:
    """An architecture whose only target is the head."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture

    def __getattr__(self, name: str) -> Any:
        return getattr(self.architecture, name)

    def targets(self, network: nn.Module) -> list[Target]:
        """Returns the head."""
        return [target for target in self.architecture.targets(network) if target.part == "head"]


def keeps_its_config(subject: MethodHarness) -> None:
    """The configuration survives JSON, as it is stored with the adapter; unknown keys fail."""
    config = subject.config
    assert type(config).model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="no-such-key"):
        type(config)(**{"no-such-key": 1})


def loads_no_torch_before_it_is_chosen(subject: MethodHarness) -> None:
    """The plugin of the method is listed without importing torch."""
    assert_listed_without_torch("method", subject.name)


def trained_names(adapted: AdaptedNetwork) -> set[str]:
    """Returns the names of all trained parameters."""
    return {name for name, _ in adapted.trainable_parameters()}


def trained_outside(modules: list[str], adapted: AdaptedNetwork) -> list[str]:
    """Returns the names of the trained parameters that do not belong to any of the modules.

    Args:
        modules: Dotted names of modules.
        adapted: The adapted network.
    """
    names = [name for name, _ in adapted.trainable_parameters()]
    prefixes = tuple(f"{module}." for module in modules)
    return [name for name in names if not name.startswith(prefixes)]


def is_trained(module: nn.Module) -> bool:
    """Returns whether any parameter of a module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def are_tensors(state: Mapping[str, Any]) -> bool:
    """Returns whether all values are tensors."""
    return all(isinstance(value, torch.Tensor) for value in state.values())


def different_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> set[str]:
    """Returns the names in the first mapping whose tensor is missing or different in the second.

    Args:
        first: Tensors by name, of any shape.
        second: The tensors that they are compared with.
    """
    return {
        name
        for name, tensor in first.items()
        if name not in second or not torch.equal(tensor, second[name])
    }


CHECKS: tuple[Callable[[MethodHarness], None], ...] = (
    starts_as_the_base,
    starts_the_same_for_the_same_seed,
    changes_only_what_it_trains,
    trains_where_it_selects,
    keeps_features_unchanged_as_a_black_box,
    trains_what_it_adds,
    hooks_return_documented_types,
    resumes_to_the_same_adapter,
    gives_every_tensor_a_gradient,
    restores_the_base_weights,
    can_be_switched_off,
    can_be_copied,
    merges_exactly,
    merges_to_the_names_of_the_base,
    loads_from_its_file,
    loads_in_another_process,
    refuses_another_network,
    runs_in_half_precision,
    trains_with_checkpointing,
    refuses_a_network_without_its_layers,
    keeps_its_config,
    loads_no_torch_before_it_is_chosen,
)
"""The checks of a method, as parameters of a test."""
