"""The schedule `poly`: linear warm-up, then the polynomial decay of nnU-Net."""

from pydantic import Field

from fseft.plugin import Config, ScheduleSpec


class PolyConfig(Config):
    """Settings of the schedule."""

    exponent: float = Field(default=0.9, gt=0, description="exponent of the decay")


def poly(progress: float, warmup_fraction: float, *, exponent: float = 0.9) -> float:
    """Returns the factor of the learning rate.

    Args:
        progress: Fraction of the training that has passed, 0 to 1.
        warmup_fraction: Fraction of the training for which the learning rate rises, 0 to 1;
            nnU-Net has no warm-up.
        exponent: Exponent of the decay.

    Examples:
        >>> [round(poly(progress, 0.0), 2) for progress in (0.0, 0.5, 1.0)]
        [1.0, 0.54, 0.0]
    """
    if progress < warmup_fraction:
        return max(progress / warmup_fraction, 0.01)
    decayed = (progress - warmup_fraction) / max(1 - warmup_fraction, 1e-9)
    return float((1 - min(1.0, decayed)) ** exponent)


SPEC = ScheduleSpec(
    name="poly",
    factory="fseft.builtin.schedules.poly:poly",
    summary="linear warm-up, then polynomial decay",
    config=PolyConfig,
    reference="Isensee et al. 2021, Nature Methods 18:203",
)
