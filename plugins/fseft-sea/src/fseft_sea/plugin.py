"""What fseft reads to know of the method; imports no torch."""

from typing import Annotated

from fseft.plugin import Config, MethodSpec, hookimpl
from pydantic import Field

FSEFT_API = 1


class SeaConfig(Config):
    """The keys of `--set`."""

    budget: float = Field(
        default=0.05,
        gt=0,
        description="most parameters of the units that are kept: up to 1 a share of the network's, above 1 a number",
    )
    ranks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(4, 16), min_length=1, description="ranks of the low-rank changes, and widths of the bottlenecks"
    )
    search: float = Field(
        default=0.4, gt=0, lt=1, description="share of the training after which the budget is allocated"
    )
    audits: int = Field(default=4, ge=1, description="audits until then, of one support case after the other")
    audit_crops: int = Field(default=1, ge=1, description="crops of a case in each audit")
    smoothing: float = Field(default=0.5, gt=0, le=1, description="weight of each audit against those before it")


@hookimpl
def fseft_methods():
    """The method."""
    return [
        MethodSpec(
            name="sea",
            factory="fseft_sea.method:Sea",
            summary="train a library of adapters, keep those that a held-out support case misses, within a budget",
            reference="Ly and Nguyen 2026, arXiv:2603.05822",
            config=SeaConfig,
        )
    ]
