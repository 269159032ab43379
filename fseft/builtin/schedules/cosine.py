"""The schedule `cosine`: linear warm-up, then half a cosine down to zero."""

from math import cos, pi

from fseft.plugin import ScheduleSpec


def cosine(progress: float, warmup_fraction: float) -> float:
    """Returns the factor of the learning rate.

    Args:
        progress: Fraction of the training that has passed, 0 to 1.
        warmup_fraction: Fraction of the training for which the learning rate rises, 0 to 1.

    Examples:
        >>> [round(cosine(progress, 0.2), 2) for progress in (0.1, 0.2, 0.6, 1.0)]
        [0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup_fraction:
        return max(progress / warmup_fraction, 0.01)
    decayed = (progress - warmup_fraction) / max(1 - warmup_fraction, 1e-9)
    return 0.5 * (1 + cos(pi * min(1.0, decayed)))


SPEC = ScheduleSpec(
    name="cosine",
    factory="fseft.builtin.schedules.cosine:cosine",
    summary="linear warm-up, then half a cosine down to zero",
    reference="Loshchilov and Hutter 2017, arXiv:1608.03983",
)
