"""The method fulfils the contract of all methods, and audits on held-out cases."""

import io

import pytest
import torch
from fseft.errors import FseftError
from fseft.learn.adapters.apply import adapt_network
from fseft.learn.networks.backbone import build_network, count_parameters, get_architecture
from fseft.learn.training_loop import make_training_state, train
from fseft.registry import registry
from fseft.testing import TINY_NETWORKS, method_checks
from fseft.training_config import TrainingConfig
from safetensors.torch import load, save

NET = get_architecture("resunet")
RECIPE = TrainingConfig(epochs=12, learning_rate=0.003, checkpoint_seconds=0, early_stopping=False)
CASES = 3

BRANCHES = {"merges_to_the_names_of_the_base": "branches cannot be merged"}
CONVOLUTIONAL = {name: TINY_NETWORKS[name] for name in ("resunet", "mednext")}
TRANSFORMER = {"swinunetr": TINY_NETWORKS["swinunetr"]}
SMALL = {"budget": 1, "ranks": (2,)}


@pytest.mark.parametrize(
    "check",
    [
        *method_checks("sea", config=SMALL, networks=CONVOLUTIONAL),
        *method_checks("sea", config=SMALL, networks=TRANSFORMER, layers=(), xfail=BRANCHES),
    ],
)
def test_the_contract(check):
    check()


def adapted(**config):
    """Return a small network with the method, whose budget is about a third of its library."""
    settings = registry().method("sea").config(**{"budget": 700, "audits": 4, **config})
    method = registry().create("method", "sea", settings)
    return adapt_network(NET, base_network(), method, decoder="frozen", seed=1)


def base_network():
    hparams = TINY_NETWORKS["resunet"].hparams
    return build_network(NET, in_channels=1, out_channels=2, hparams=hparams, seed=0)


def a_case(number):
    """Return an image, and a label of its bright voxels."""
    generator = torch.Generator().manual_seed(number)
    image = torch.randn((1, 1, 16, 16, 16), generator=generator)
    return image, (image[:, 0] > 0.5).long()


class Trainer:
    """A training on cases of one crop each: each step draws a case that is not held out."""

    def __init__(self, adapted, *, cases=CASES, recipe=RECIPE):
        self.adapted, self.cases, self.recipe = adapted, cases, recipe
        self.training = make_training_state(adapted, recipe)
        self.log, self.states = [], []

    def loss_of(self, step):
        held_out = self.adapted.held_out_cases(1 + step // self.cases, self.cases)
        drawn = [case for case in range(self.cases) if case not in held_out]
        self.log.append(drawn[step % len(drawn)])
        image, label = a_case(self.log[-1])
        logits = self.adapted.network(image)
        return torch.nn.functional.cross_entropy(logits, label)

    @torch.no_grad()
    def on_epoch_validation(self, epoch):
        self.adapted.on_epoch_validation(epoch, self.cases, self.crops_of)

    def crops_of(self, case, count):
        self.log.append(f"audit of {case}")
        image, label = a_case(case)
        return image.expand(count, -1, -1, -1, -1), label.expand(count, -1, -1, -1)

    def run(self):
        """Train to the end."""
        train(
            self.training,
            self.loss_of,
            self.recipe,
            steps_per_epoch=self.cases,
            on_epoch=self.on_epoch_validation,
            save=lambda state: self.states.append(through_a_file(state)),
        )
        self.adapted.finish()
        return self


def through_a_file(state):
    """Save and load a state as a checkpoint does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.fixture(scope="module")
def trained():
    """Return a finished training; tests must not change it."""
    return Trainer(adapted()).run()


def test_no_step_between_two_audits_has_drawn_the_audited_case(trained):
    drawn, audited = set(), []
    for entry in trained.log:
        if isinstance(entry, int):
            drawn.add(entry)
            continue
        audited.append(int(entry.removeprefix("audit of ")))
        assert audited[-1] not in drawn
        assert len(drawn) == CASES - 1
        drawn = set()
    assert audited == [0, 1, 2, 0]
    assert drawn == {0, 1, 2}  # all are trained on once the budget is allocated


def test_a_single_case_is_trained_on_and_audited_and_the_notes_state_it(trained):
    alone = Trainer(adapted(), cases=1).run()
    assert alone.log.count(0) == RECIPE.epochs
    assert alone.log.count("audit of 0") == 4
    line = "audits used other crops of the only case"
    assert any(line in note for note in alone.adapted.notes())
    assert not any(line in note for note in trained.adapted.notes())


def test_what_is_kept_is_within_the_budget_and_has_gained(trained):
    kept = trained.adapted.kept_units()
    assert 0 < sum(unit.parameters for unit in kept) <= 700
    assert min(kept.values()) > 0
    assert len(kept) < len(trained.adapted.units)
    head = 4 * 2 + 2
    assert count_parameters(trained.adapted.network, trainable=True) == head + sum(
        unit.parameters for unit in kept
    )


def test_the_notes_list_the_kept_units(trained):
    first, *units = trained.adapted.notes()
    kept = trained.adapted.kept_units()
    assert first.startswith(
        f"{len(kept)} of {len(trained.adapted.units)} units kept after 4 audits"
    )
    assert {line.split(":")[0].strip() for line in units} == {unit.name for unit in kept}


def test_the_adapter_holds_what_was_kept_alone_and_comes_back_the_same(trained):
    tensors = load(save(trained.adapted.state_dict()))
    names = [name for unit in trained.adapted.kept_units() for name in unit.adapters]
    added = [name for name in tensors if "parametrizations" in name]
    assert {name.rpartition(".")[0] for name in added} == set(names)
    fresh = adapted()
    fresh.load_state_dict(tensors)
    x, _ = a_case(9)
    assert fresh.notes() == trained.adapted.notes()
    with torch.no_grad():
        assert torch.equal(fresh.network(x), trained.adapted.network(x))
        torch.testing.assert_close(fresh.merge()(x), trained.adapted.network(x))


@pytest.mark.parametrize("epoch", [1, 3, 5, 8])
def test_a_resumed_training_equals_an_uninterrupted_one(epoch, trained):
    resumed = Trainer(adapted())
    resumed.training.restore(trained.states[epoch - 1])
    resumed.run()
    tensors = resumed.adapted.state_dict()
    assert {
        n for n, t in trained.adapted.state_dict().items() if not torch.equal(t, tensors[n])
    } == set()
    assert resumed.training.losses == trained.training.losses


@torch.no_grad()
def test_a_unit_that_does_nothing_gains_nothing_and_is_not_kept():
    network = adapted()
    trainer = Trainer(network)
    assert torch.equal(
        network._measure_gains(*trainer.crops_of(0, 1)), torch.zeros(len(network.units))
    )
    network.finish()
    assert network.kept_units() == {}


def test_the_gain_of_a_unit_is_what_dice_loses_without_it():
    network = Trainer(adapted(search_fraction=0.9)).run().adapted
    assert float(network.extra_state["sea.gains"][-1].abs().max()) > 0.001
    image, label = a_case(0)
    unit = next(iter(network.kept_units()))
    with torch.no_grad():
        with_it, without = network._dice(image, label), network._dice(image, label, unit)
        again = network._dice(image, label)
    assert with_it == again != without


def test_crops_without_a_structure_measure_no_gain(trained):
    gains = trained.adapted._measure_gains(
        torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 16, 16, 16).long()
    )
    assert torch.equal(gains, torch.zeros(len(gains)))


def test_no_plateau_ends_the_search(trained):
    fresh = adapted()
    assert list(fresh.plateau_losses([0.5] * 40)) == []
    searched = 5  # of 12 epochs: the first with 0.4 of them done
    assert list(trained.adapted.plateau_losses([*range(12)])) == [*range(searched, 12)]


def test_no_audit_is_begun_when_the_training_is_nearly_over():
    recipe = RECIPE.model_copy(update={"epochs": 1})
    short = Trainer(adapted(), recipe=recipe).run()
    assert [entry for entry in short.log if isinstance(entry, str)] == []
    assert short.adapted.notes()[0].startswith("0 of")


@pytest.mark.parametrize(("budget", "parameters"), [(0.5, 0.5), (1, 1.0), (500, 500)])
def test_the_budget_is_a_fraction_or_a_number(budget, parameters):
    whole = count_parameters(base_network())
    expected = parameters if parameters > 1 else int(parameters * whole)
    assert adapted(budget=budget).budget == expected


def test_a_budget_that_no_unit_fits_is_refused():
    with pytest.raises(
        FseftError,
        match="budget of 2 parameters is smaller than the smallest unit",
    ):
        adapted(budget=2)
