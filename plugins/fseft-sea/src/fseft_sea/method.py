"""SEA (Ly and Nguyen 2026, arXiv:2603.05822): search, audit, allocate; here audited on held-out support cases."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.method import require_targets
from fseft.learn.networks.backbone import count_parameters
from fseft.learn.training.losses import Predictions, structure_masks
from torch import nn

from fseft_sea.allocation import fill, smoothed
from fseft_sea.library import PARTS, Unit, add_units, kinds
from fseft_sea.plugin import SeaConfig

SEARCHING = -1


@dataclass
class SeaAdapted(AdaptedNetwork):
    """A network with a library of units, of which those are kept that the audits found worth their parameters.

    Attributes:
        config: Of the method.
        units: The library.
        budget: Most parameters of the units that are kept.
    """

    config: SeaConfig = None
    units: tuple[Unit, ...] = ()
    budget: int = 0

    def held_out_cases(self, epoch, cases):
        """The support case that the next audit is on, if there are others to train on."""
        searching = self._record("searched") == SEARCHING
        return (self._record("audits") % cases,) if searching and cases > 1 else ()

    def on_epoch_validation(self, epoch, cases, crops_of):
        """Measure what each unit gains; when the search is over, allocate the budget."""
        done, share = self._record("audits"), epoch.progress / self.config.search
        if self._record("searched") != SEARCHING or share < (done + 1) / self.config.audits:
            return
        if epoch.progress < (1 + self.config.search) / 2:  # later, after few long epochs, no time is left for it
            self.extra_state["sea.gains"][done] = self._measured(*crops_of(done % cases, self.config.audit_crops))
            self.extra_state["sea.audits"] += 1
            self.extra_state["sea.cases"].fill_(cases)
        if share >= 1:
            self._allocate(epoch.number)

    def plateau_losses(self, losses):
        """The epochs after the search."""
        searched = self._record("searched")
        return () if searched == SEARCHING else losses[searched:]

    def finish(self):
        """Allocate, if the training was over before the search was."""
        if self._record("searched") == SEARCHING:
            self._allocate(0)

    def kept_units(self):
        """The units that are still there, and what each gains."""
        gains = self._gains()
        there = [not isinstance(self.network.get_submodule(unit.additions[0]), nn.Identity) for unit in self.units]
        return {unit: gain for unit, gain, kept in zip(self.units, gains, there, strict=True) if kept}

    def notes(self):
        """Which units were kept, those first that gain most."""
        kept = self.kept_units()
        size = sum(unit.parameters for unit in kept)
        audits, cases = self._record("audits"), self._record("cases")
        return (
            f"{len(kept)} of {len(self.units)} units kept after {audits} audits, "
            f"{size:,} parameters of at most {self.budget:,}",
            *(
                f"  {unit.name}: {unit.parameters:,} parameters, Dice {gain:+.2g}"
                for unit, gain in sorted(kept.items(), key=lambda item: -item[1])
            ),
            *(["the audits were on the one case that was trained on, on other crops of it"] if cases == 1 else []),
        )

    def _record(self, name):
        return int(self.extra_state[f"sea.{name}"])

    def _allocate(self, epochs):
        kept = fill(self._gains(), [unit.parameters for unit in self.units], self.budget)
        self.prune(a for index, unit in enumerate(self.units) if index not in kept for a in unit.additions)
        self.extra_state["sea.searched"].fill_(epochs)

    def _gains(self):
        """Of each unit, smoothed over the audits."""
        audits = self.extra_state["sea.gains"][: self._record("audits")]
        return smoothed(audits, self.config.smoothing).tolist()

    def _measured(self, images, labels):
        """What Dice loses without each unit, (units,): the mean over the crops that show a structure."""
        samples = [[0.0] * len(self.units)] if not labels.any() else []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            if label.any():
                whole = self._dice(image, label)
                samples.append([whole - self._dice(image, label, unit) for unit in self.units])
        return torch.tensor(samples).mean(0)

    def _dice(self, image, label, without=None):
        """Soft Dice, the mean over the structures of a crop."""
        with self._off(without.additions if without else ()):
            logits = self.network(image).float()
        masks = structure_masks(label, logits.shape[1] - 1)
        dice = Predictions(logits, masks, label).dice()
        return float(dice[masks.flatten(2).any(2)].mean())

    @contextmanager
    def _off(self, additions):
        modules = [self.network.get_submodule(name) for name in additions]
        try:
            for module in modules:
                module.enabled = False
            yield
        finally:
            for module in modules:
                module.enabled = True


class Sea:
    """The method `sea`."""

    def __init__(self, config):
        self.config = config

    def select(self, architecture, network):
        """The layers before the decoder that some kind of adapter fits."""
        roles = {role for kind in kinds(self.config.ranks) for role in kind.roles}
        targets = [
            target
            for target in architecture.targets(network)
            if target.part in PARTS and target.role in roles and target.weight_has_effect
        ]
        return require_targets(targets, "layers before the decoder", "sea")

    def apply(self, architecture, network, *, generator):
        """Put all units in; all but them and the head is frozen.

        Raises:
            FseftError: No unit fits the budget.
        """
        allowed = self.config.budget
        budget = int(allowed if allowed > 1 else allowed * count_parameters(network))
        targets = self.select(architecture, network)
        units, rates = add_units(targets, self.config.ranks, network, generator)
        smallest = min(unit.parameters for unit in units)
        if smallest > budget:
            raise FseftError(
                f"a budget of {budget:,} parameters is less than the smallest unit has, which is {smallest:,}",
                hint="Set a larger budget.",
            )
        additions = tuple(name for unit in units for name in unit.additions)
        adapted = SeaAdapted.freeze_except(
            additions, architecture, network, learning_rate=1e-3, head_lr_multiplier=10.0, lr_multipliers=rates
        )
        adapted.prunable, adapted.config, adapted.units, adapted.budget = additions, self.config, units, budget
        adapted.extra_state = {
            "sea.gains": torch.zeros(self.config.audits, len(units)),  # of Dice
            "sea.audits": torch.tensor(0),
            "sea.cases": torch.tensor(0),
            "sea.searched": torch.tensor(SEARCHING),  # epochs until the budget was allocated
        }
        return adapted
