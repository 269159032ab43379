"""Registers the method with fseft; imports no torch."""

from typing import Annotated, ClassVar

from fseft.plugin import Config, MethodSpec, hookimpl
from pydantic import Field

FSEFT_API = 1


class SeaConfig(Config):
    """Settings of the method; the keys of `--set`."""

    former_names: ClassVar = {"search": "search_fraction"}

    budget: float = Field(
        default=0.05,
        gt=0,
        description="maximum number of parameters of the kept units; up to 1: a fraction of the "
        "network's parameters",
    )
    ranks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(4, 16),
        min_length=1,
        description="ranks of the low-rank deltas, and widths of the bottlenecks",
    )
    search_fraction: float = Field(
        default=0.4,
        gt=0,
        lt=1,
        description="fraction of the training after which the budget is allocated",
    )
    audits: int = Field(
        default=4, ge=1, description="number of audits until then, on training cases in turn"
    )
    audit_crops: int = Field(default=1, ge=1, description="crops of a case in each audit")
    smoothing: float = Field(
        default=0.5, gt=0, le=1, description="weight of each audit relative to the earlier ones"
    )


@hookimpl
def fseft_methods():
    """Returns the methods of this package."""
    return [
        MethodSpec(
            name="sea",
            factory="fseft_sea.method:Sea",
            summary="train a library of adapters, and keep those that held-out cases need, "
            "within a budget",
            reference="Ly and Nguyen 2026, arXiv:2603.05822",
            config=SeaConfig,
            supports_regions=False,
        )
    ]
