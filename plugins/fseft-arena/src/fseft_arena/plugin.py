"""What fseft reads to know of the method; imports no torch."""

from fseft.plugin import Config, MethodSpec, hookimpl
from pydantic import Field

FSEFT_API = 1


class ArenaConfig(Config):
    """The keys of `--set`."""

    rank: int = Field(default=8, ge=1, description="rank that each change starts with; the penalty may lower it")
    penalty: float = Field(default=0.3, ge=0, description="weight of |v|, the L1 norm of the singular values")
    ratio: float = Field(default=30.0, gt=0, description="learning rate of v over that of U and V")
    bound: float = Field(default=0.1, ge=0, description="weight of how much columns of U and V are longer than one")


@hookimpl
def fseft_methods():
    """The method."""
    return [
        MethodSpec(
            name="arena",
            factory="fseft_arena.method:Arena",
            summary="low-rank changes that find their rank: LoRA as an SVD with sparse singular values; merges exactly",
            reference="Baklouti et al. 2025, arXiv:2507.15793",
            config=ArenaConfig,
        )
    ]
