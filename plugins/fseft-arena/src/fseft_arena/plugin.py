"""Registers the method with fseft; imports no torch."""

from typing import ClassVar

from fseft.plugin import Config, MethodSpec, hookimpl
from pydantic import Field

FSEFT_API = 1


class ArenaConfig(Config):
    """Settings of the method; the keys of `--set`."""

    former_names: ClassVar = {"ratio": "v_lr_ratio"}

    rank: int = Field(
        default=8, ge=1, description="initial rank of each delta; the penalty may lower it"
    )
    penalty: float = Field(
        default=0.3, ge=0, description="weight of |v|, the L1 norm of the singular values"
    )
    v_lr_ratio: float = Field(
        default=30.0, gt=0, description="learning rate of v divided by that of U and V"
    )
    bound: float = Field(
        default=0.1, ge=0, description="weight of the penalty on columns of U and V longer than 1"
    )


@hookimpl
def fseft_methods():
    """Returns the methods of this package."""
    return [
        MethodSpec(
            name="arena",
            factory="fseft_arena.method:Arena",
            summary="low-rank deltas that find their rank: LoRA as an SVD with sparse singular "
            "values; merges exactly",
            reference="Baklouti et al. 2025, arXiv:2507.15793",
            config=ArenaConfig,
        )
    ]
