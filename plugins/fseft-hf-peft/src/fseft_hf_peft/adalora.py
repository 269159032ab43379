"""AdaLoRA (Zhang et al. 2023, arXiv:2303.10512): what it does during training, beyond its layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fseft_hf_peft.library import RankAllocator, peft
from fseft_hf_peft.method import PeftAdapted, PeftMethod

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Generator, Tensor, nn

    from fseft.learn.networks.roles import Architecture, Target

AVERAGES = ("exp_avg_ipt", "exp_avg_unc")


@dataclass
class AdaLoRAAdapted(PeftAdapted):
    """A network whose changes share a budget of ranks.

    Attributes:
        allocator: PEFT's; it knows how important each singular value was so far.
    """

    allocator: Any = field(default=None)

    def regularizer(self) -> Tensor | None:
        """How far the singular vectors are from orthonormal (eq. 4), on average over the matrices."""
        trained = self.trainable_parameters()
        matrices = [p for name, p in trained if "lora_A" in name] + [
            p.T for name, p in trained if "lora_B" in name
        ]
        distances = [
            torch.linalg.norm(m @ m.T - torch.eye(len(m), device=m.device)) for m in matrices
        ]
        weight: float = self.allocator.peft_config.orth_reg_weight
        return weight * torch.stack(distances).mean()

    def on_optimizer_step(self, step: int, total: int, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002
        """Lower the budget (eq. 12), and set to zero the least important singular values beyond it (eq. 6)."""
        self.allocator.set_total_step(total)
        self.allocator.update_ipt(self.network)
        budget, due = self.allocator.budget_schedule(step)
        if (due or step == total) and budget < self.allocator.init_bgt:
            self.allocator.mask_to_budget(self.network, budget)

    def training_state(self) -> dict[str, Tensor]:
        """The averages of importance and of its changes."""
        averages = {kind: getattr(self.allocator, kind) for kind in AVERAGES}
        return {
            f"{kind}:{name}": tensor
            for kind, found in averages.items()
            for name, tensor in found.items()
        }

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the averages back."""
        parameters = dict(self.network.named_parameters())
        for key, tensor in tensors.items():
            kind, _, name = key.partition(":")
            getattr(self.allocator, kind)[name] = tensor.to(parameters[name].device)
            self.allocator.ipt[name] = torch.zeros_like(parameters[name])


class AdaLoRA(PeftMethod):
    """Method `hf-adalora`."""

    adapted: ClassVar[type[PeftAdapted]] = AdaLoRAAdapted

    def settings(self, targets: Sequence[Target]) -> dict[str, Any]:
        """PEFT wants the number of steps, which is known with the first one only."""
        settings = super().settings(targets)
        return {**settings, "total_step": settings["tinit"] + 1}

    def apply(
        self, architecture: Architecture, network: nn.Module, *, generator: Generator
    ) -> PeftAdapted:
        """As all tuners, and with an allocator."""
        adapted = super().apply(architecture, network, generator=generator)
        assert isinstance(adapted, AdaLoRAAdapted)  # noqa: S101
        adapted.allocator = RankAllocator(
            network, peft.AdaLoraConfig(**self.settings([])), "default"
        )
        return adapted
