"""Callbacks: what a caller of the library may observe while it works."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from fseft.learn.training.progress import Epoch


class Callbacks:
    """Observe a long-running call; every method does nothing by default, override those of interest.

    Messages are not callbacks: the library logs them to the logger of its module (`logging.getLogger("fseft")`).

    Example:
        >>> class PrintLoss(Callbacks):
        ...     def on_epoch_end(self, epoch):
        ...         print(epoch.number, epoch.loss)
    """

    def progress(
        self, description: str, total: int
    ) -> AbstractContextManager[Callable[[str], None]]:
        """Begin a stage of `total` items, such as the cases to preprocess.

        Args:
            description: Name of the stage, as in "preprocess".
            total: Number of items.

        Returns:
            A context manager; its value is called with the name of each item once it is done.
        """
        del description, total
        return nullcontext(lambda _: None)

    def on_start(self, config: Any, first_epoch: int) -> None:
        """Called before training with the resolved configuration; `first_epoch` > 1 resumes a run."""

    def on_step(self, epoch: Epoch) -> None:
        """Called after each training step with the state of the running epoch."""

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Called after each epoch."""

    def on_validation_end(self, epoch: Epoch, dice: Mapping[str, float]) -> None:
        """Called after a validation with the Dice of each structure."""

    def on_window(self, scan: str, finished: int, total: int) -> None:
        """Called after each sliding window of a scan that this process segments."""

    def on_trial_end(self, trial: Any) -> None:
        """Called after each trial of a benchmark."""
