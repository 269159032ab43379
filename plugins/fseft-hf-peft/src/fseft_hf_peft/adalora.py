"""AdaLoRA during training: regularisation and the schedule of its rank budget.

Zhang et al. 2023, arXiv:2303.10512.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fseft_hf_peft.library import RankAllocator, peft
from fseft_hf_peft.method import PeftMethod, PeftNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Generator, Tensor, nn

    from fseft.learn.networks.roles import Architecture, Target

AVERAGES = ("exp_avg_ipt", "exp_avg_unc")
"""Attributes of PEFT's allocator: moving averages of importance and of its uncertainty."""


@dataclass
class AdaLoRANetwork(PeftNetwork):
    """A network whose deltas share a budget of ranks.

    Attributes:
        allocator: PEFT's allocator, which tracks the importance of each singular value.
    """

    allocator: Any = field(default=None)

    def regularizer(self) -> Tensor | None:
        """Returns the mean distance of the singular vectors from orthonormality (eq. 4)."""
        matrices: list[Tensor] = []
        for name, parameter in self.trainable_parameters():
            if "lora_A" in name:
                matrices.append(parameter)
            elif "lora_B" in name:
                matrices.append(parameter.T)
        distances = [_distance_from_orthonormal(matrix) for matrix in matrices]
        weight: float = self.allocator.peft_config.orth_reg_weight
        return weight * torch.stack(distances).mean()

    def on_optimizer_step(
        self,
        step: int,
        total: int,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
    ) -> None:
        """Lower the budget (eq. 12), and zero the least important singular values (eq. 6)."""
        self.allocator.set_total_step(total)
        self.allocator.update_ipt(self.network)
        budget, due = self.allocator.budget_schedule(step)
        if (due or step == total) and budget < self.allocator.init_bgt:
            self.allocator.mask_to_budget(self.network, budget)

    def training_state(self) -> dict[str, Tensor]:
        """Returns the moving averages of the allocator."""
        return {
            f"{average}:{name}": tensor
            for average in AVERAGES
            for name, tensor in getattr(self.allocator, average).items()
        }

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores the moving averages."""
        parameters = dict(self.network.named_parameters())
        for key, tensor in tensors.items():
            average, _, name = key.partition(":")
            getattr(self.allocator, average)[name] = tensor.to(parameters[name].device)
            self.allocator.ipt[name] = torch.zeros_like(parameters[name])


def _distance_from_orthonormal(matrix: Tensor) -> Tensor:
    """Returns |M M^T - I| for a matrix (r, n)."""
    identity = torch.eye(len(matrix), device=matrix.device)
    distance: Tensor = torch.linalg.norm(matrix @ matrix.T - identity)
    return distance


class AdaLoRA(PeftMethod):
    """Method `hf-adalora`."""

    network_type: ClassVar[type[PeftNetwork]] = AdaLoRANetwork

    def settings(self, targets: Sequence[Target]) -> dict[str, Any]:
        """Adds a number of steps, which PEFT requires; the real one is set at the first step."""
        settings = super().settings(targets)
        return {**settings, "total_step": settings["tinit"] + 1}

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> PeftNetwork:
        """Inserts PEFT's layers, and creates the allocator."""
        adapted = super().apply(architecture, network, generator=generator)
        assert isinstance(adapted, AdaLoRANetwork)  # noqa: S101
        config = peft.AdaLoraConfig(**self.settings([]))
        adapted.allocator = RankAllocator(network, config, "default")
        return adapted
