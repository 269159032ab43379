"""The schedule `constant`: linear warm-up, then a constant learning rate."""

from fseft.plugin import ScheduleSpec


def constant(progress: float, warmup_fraction: float) -> float:
    """Returns the factor of the learning rate.

    Args:
        progress: Fraction of the training that has passed, 0 to 1.
        warmup_fraction: Fraction of the training for which the learning rate rises, 0 to 1.

    Examples:
        >>> [constant(progress, 0.2) for progress in (0.1, 0.2, 1.0)]
        [0.5, 1.0, 1.0]
    """
    return max(progress / warmup_fraction, 0.01) if progress < warmup_fraction else 1.0


SPEC = ScheduleSpec(
    name="constant",
    factory="fseft.builtin.schedules.constant:constant",
    summary="linear warm-up, then constant",
)
