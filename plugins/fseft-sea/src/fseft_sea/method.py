"""SEA: search, audit and allocate, with audits on held-out training cases.

Ly and Nguyen 2026, arXiv:2603.05822.
"""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.adapters.method import BaseMethod
from fseft.learn.networks.backbone import count_parameters
from fseft.learn.training.losses import Predictions, structure_masks
from fseft.volume.label_values import IGNORED
from torch import nn

from fseft_sea.allocation import fill, smoothed
from fseft_sea.library import PARTS, Unit, add_units, kinds
from fseft_sea.plugin import SeaConfig

SEARCHING = -1
"""Value of `sea.searched` until the budget is allocated."""


@dataclass
class SeaNetwork(AdaptedNetwork):
    """A network with a library of units, some of which are kept after the search.

    Attributes:
        config: Settings of the method.
        units: The library.
        budget: Maximum number of parameters of the kept units.
    """

    config: SeaConfig = None
    units: tuple[Unit, ...] = ()
    budget: int = 0

    def held_out_cases(self, epoch, cases):
        """Holds out the case of the next audit, if others remain to train on."""
        if self._searched() != SEARCHING or cases == 1:
            return ()
        return (self._state("audits") % cases,)

    def on_epoch_validation(self, epoch, cases, crops_of):
        """Measures the gain of each unit; allocate the budget at the end of the search."""
        number, config = self._state("audits"), self.config
        progress = epoch.progress / config.search_fraction
        if self._searched() != SEARCHING or progress < (number + 1) / config.audits:
            return
        # If few long epochs leave no time for training after the search, skip the audit.
        if epoch.progress < (1 + config.search_fraction) / 2:
            images, labels = crops_of(number % cases, config.audit_crops)
            self.extra_state["sea.gains"][number] = self._measure_gains(images, labels)
            self.extra_state["sea.audits"] += 1
            self.extra_state["sea.cases"].fill_(cases)
        if progress >= 1:
            self._allocate(epoch.number)

    def plateau_losses(self, losses):
        """Returns the losses after the search."""
        searched = self._searched()
        return () if searched == SEARCHING else losses[searched:]

    def finish(self):
        """Allocates the budget if training ended before the search."""
        if self._searched() == SEARCHING:
            self._allocate(0)

    def kept_units(self):
        """Returns the units that were not pruned, with their smoothed gains."""
        gains = dict(zip(self.units, self._smoothed_gains(), strict=True))
        kept = [unit for unit in self.units if not self._is_pruned(unit)]
        return {unit: gains[unit] for unit in kept}

    def notes(self):
        """Returns the kept units, those with the largest gain first."""
        kept, audits = self.kept_units(), self._state("audits")
        size = sum(unit.parameters for unit in kept)
        lines = [
            f"{len(kept)} of {len(self.units)} units kept after {audits} audits, "
            f"{size:,} of at most {self.budget:,} parameters"
        ]
        for unit, gain in sorted(kept.items(), key=lambda item: -item[1]):
            lines.append(f"  {unit.name}: {unit.parameters:,} parameters, Dice {gain:+.2g}")
        if self._state("cases") == 1:
            lines.append("audits used other crops of the only case, which was also trained on")
        return tuple(lines)

    def _state(self, name):
        return int(self.extra_state[f"sea.{name}"])

    def _searched(self):
        """Returns the number of epochs until the budget was allocated, or SEARCHING."""
        return self._state("searched")

    def _is_pruned(self, unit):
        return isinstance(self.network.get_submodule(unit.adapters[0]), nn.Identity)

    def _allocate(self, epochs):
        """Prunes the units that the budget does not include."""
        sizes = [unit.parameters for unit in self.units]
        kept = fill(self._smoothed_gains(), sizes, self.budget)
        for index, unit in enumerate(self.units):
            if index not in kept:
                self.prune(unit.adapters)
        self.extra_state["sea.searched"].fill_(epochs)

    def _smoothed_gains(self):
        """Returns the gain of each unit, smoothed over the audits."""
        audits = self.extra_state["sea.gains"][: self._state("audits")]
        return smoothed(audits, self.config.smoothing).tolist()

    def _measure_gains(self, images, labels):
        """Measures the decrease of soft Dice without each unit.

        Args:
            images: Crops (B, C, i, j, k).
            labels: Labels (B, i, j, k).

        Returns:
            Means (units,) over the crops that show a structure; zeros if none does.
        """
        samples = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            if (label > 0).any():
                dice = self._dice(image, label)
                samples.append([dice - self._dice(image, label, unit) for unit in self.units])
        return torch.tensor(samples or [[0.0] * len(self.units)]).mean(0)

    def _dice(self, image, label, without=None):
        """Returns the mean soft Dice over the structures of a crop.

        Args:
            image: The crop (1, C, i, j, k).
            label: Its labels (1, i, j, k).
            without: A unit to switch off.
        """
        with self._switched_off(without.adapters if without else ()):
            logits = self.network(image).float()
        masks = structure_masks(label, logits.shape[1] - 1)
        counts = (label != IGNORED)[:, None]
        dice = Predictions(logits, masks, label, counts).dice()
        return float(dice[masks.flatten(2).any(2)].mean())

    @contextmanager
    def _switched_off(self, adapters):
        modules = [self.network.get_submodule(name) for name in adapters]
        try:
            for module in modules:
                module.enabled = False
            yield
        finally:
            for module in modules:
                module.enabled = True


class Sea(BaseMethod):
    """Method `sea`."""

    name, needs = "sea", "layers before the decoder"
    learning_rate, head_lr_multiplier = 3e-3, 10.0

    def wants(self, target):
        """Returns True for layers before the decoder that some kind of adapter fits."""
        if target.part not in PARTS:
            return False
        fits = any(target.role in kind.roles for kind in kinds(self.config.ranks))
        return fits and target.weight_has_effect

    def apply(self, architecture, network, *, generator):
        """Adds all units; everything else but the head is frozen.

        Raises:
            FseftError: The budget is smaller than the smallest unit.
        """
        config = self.config
        fraction = config.budget if config.budget <= 1 else None
        budget = int(config.budget if fraction is None else fraction * count_parameters(network))
        targets = self.select(architecture, network)
        units = add_units(targets, config.ranks, network, generator)
        _require_budget(budget, units)
        adapters = tuple(name for unit in units for name in unit.adapters)
        adapted = SeaNetwork.freeze_except(
            adapters,
            architecture,
            network,
            learning_rate=self.learning_rate,
            head_lr_multiplier=self.head_lr_multiplier,
            lr_multipliers=_lr_multipliers(units, network),
        )
        adapted.config, adapted.units, adapted.budget = config, units, budget
        adapted.prunable = adapters
        adapted.extra_state = {
            "sea.gains": torch.zeros(config.audits, len(units)),  # of Dice
            "sea.audits": torch.tensor(0),
            "sea.cases": torch.tensor(0),
            "sea.searched": torch.tensor(SEARCHING),
        }
        return adapted


def _require_budget(budget, units):
    """Raises an error if not even the smallest unit fits the budget."""
    smallest = min(unit.parameters for unit in units)
    if smallest > budget:
        raise FseftError(
            f"the budget of {budget:,} parameters is smaller than the smallest unit, "
            f"which has {smallest:,}",
            hint="Set a larger budget.",
        )


def _lr_multipliers(units, network):
    """Returns the multiple of the learning rate of each parameter, by name."""
    multipliers = {}
    for unit in units:
        for adapter in unit.adapters:
            for name, _ in network.get_submodule(adapter).named_parameters():
                multipliers[f"{adapter}.{name}"] = unit.lr_multiplier
    return multipliers
