"""The class of each voxel from the logits of all classes.

By default it is the class of the highest logit. Structures that overlap, such as an organ and its
tumour, or nnU-Net's regions, are written one after the other instead: each takes the voxels where
its logit exceeds that of the background, its probability one half, also from those before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = NDArray[Any]

_SPARSE = 8  # gathering voxels is measured to be faster if less than one in so many is needed


def decide(scores: Array, order: Sequence[int] = ()) -> Array:
    """Returns the class of each voxel.

    Args:
        scores: Logits (C, ...), the background first.
        order: Channels in the order of writing; empty for the class of the highest logit, the first
            one of ties.

    Returns:
        Class indices (...), uint8, or uint16 for more than 256 classes.

    Examples:
        >>> import numpy as np
        >>> organ_and_tumour = np.array([[0.0, 0.0], [9.0, 9.0], [4.0, -4.0]])
        >>> decide(organ_and_tumour).tolist(), decide(organ_and_tumour, (1, 2)).tolist()
        ([1, 1], [2, 1])
    """
    classes = np.zeros(scores.shape[1:], np.uint8 if len(scores) <= 256 else np.uint16)
    if order:
        for channel in order:
            np.copyto(classes, channel, where=scores[channel] > scores[0])
        return classes
    # Faster than NumPy's argmax on this axis.
    best: Array = scores[0].copy()
    for channel in range(1, len(scores)):
        np.copyto(classes, channel, where=scores[channel] > best)
        np.maximum(best, scores[channel], out=best)
    return classes


def confidence(scores: Array, classes: Array, order: Sequence[int] = ()) -> Array:
    """Returns the probability of the class of each voxel, and 0 for the background.

    Args:
        scores: Logits (C, ...), the background first.
        classes: The result of `decide` with the same order.
        order: Channels in the order of writing; empty for exclusive classes.

    Returns:
        Probabilities (...): the softmax, or the sigmoid against the background of classes that
        overlap.
    """
    foreground = classes > 0
    if _SPARSE * np.count_nonzero(foreground) > foreground.size:
        return _confidence(scores, classes, order) * foreground
    probability = np.zeros(foreground.shape, scores.dtype)
    probability[foreground] = _confidence(scores[:, foreground], classes[foreground], order)
    return probability


def probabilities(scores: Array, order: Sequence[int] = ()) -> Array:
    """Returns the probability of each class.

    Args:
        scores: Logits (C, ...), the background first.
        order: Channels in the order of writing; empty for exclusive classes.

    Returns:
        (C, ...): the softmax; or the sigmoid of each structure against the background, and the
        remainder of the largest one for the background.
    """
    from scipy.special import expit, softmax

    result: Array
    if not order:
        result = softmax(scores, axis=0)
        return result
    result = expit(scores - scores[0])
    result[0] = 1 - result[1:].max(0)
    return result


def _confidence(scores: Array, classes: Array, order: Sequence[int]) -> Array:
    """Returns the probability of the chosen classes, which are foreground where it matters."""
    from scipy.special import expit

    probability: Array
    if order:
        chosen = np.take_along_axis(scores, classes[None].astype(np.intp), axis=0)[0]
        probability = expit(chosen - scores[0])
        return probability
    shifted = scores - scores.max(0)
    probability = 1 / np.exp(shifted, out=shifted).sum(0)
    return probability
