"""Callbacks: the events of long-running calls that a caller of the library can observe."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fseft.learn.training.progress import Epoch


class Callbacks:
    """Base class of observers. Its methods do nothing; override those of interest.

    Messages are not callbacks: the library logs them, below `logging.getLogger("fseft")`.

    Examples:
        >>> class PrintLoss(Callbacks):
        ...     def on_epoch_end(self, epoch):
        ...         print(epoch.number, epoch.loss)
    """

    def progress(
        self, description: str, total: int
    ) -> AbstractContextManager[Callable[[str], None]]:
        """Begins a stage of `total` items, such as the cases to preprocess.

        Args:
            description: Name of the stage, as in "preprocess".
            total: Number of items.

        Returns:
            A context manager; its value is called with the name of each item once it is done.
        """
        del description, total
        return nullcontext(lambda _: None)

    def on_start(self, config: Any, first_epoch: int) -> None:
        """Called before training, once everything is decided.

        Args:
            config: The resolved configuration, such as `fseft.adaptation.request.AdaptConfig`.
            first_epoch: The first epoch to train, from 1; above 1 if the run is resumed.
        """

    def on_step(self, epoch: Epoch) -> None:
        """Called after each training step with the state of the running epoch."""

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Called after each epoch."""

    def on_validation_end(self, epoch: Epoch, dice: Mapping[str, float]) -> None:
        """Called after a validation with the Dice of each structure.

        Args:
            epoch: State of the training at the validation.
            dice: Structure -> Dice, from 0 to 1.
        """

    def on_checkpoint_saved(self, path: Path) -> None:
        """Called after a checkpoint, or at the end the adapter, was written to `path`."""

    def on_trial_end(self, trial: Any) -> None:
        """Called after each trial of a benchmark."""

    def on_window(self, scan: str, finished: int, total: int) -> None:
        """Called after each sliding window of a scan in this process.

        Args:
            scan: Name of the case, followed by the number of the pass if there are several.
            finished: Windows that are finished; the first call has 0.
            total: Windows of the pass.
        """

    def on_download(self, name: str, received: int, total: int) -> None:
        """Called during a download.

        Args:
            name: Name of the model.
            received: Bytes received so far.
            total: Bytes of the file; 0 if unknown.
        """

    def on_end(self, outcome: str) -> None:
        """Called when training has ended: "finished", or the line of the error that ended it."""


class StageCallbacks(Callbacks):
    """Forwards the steps of a training that is a part of a longer call, with the name of the part.

    Args:
        stage: Name of the part, such as "fold 2 of 5".
        callbacks: Observe the longer call.
    """

    def __init__(self, stage: str, callbacks: Callbacks) -> None:
        self._stage = stage
        self._callbacks = callbacks

    def on_step(self, epoch: Epoch) -> None:
        """Forwards the event; a part of a part has both names."""
        stages = [self._stage, epoch.stage] if epoch.stage else [self._stage]
        named = replace(epoch, stage=", ".join(stages))
        self._callbacks.on_step(named)


class CallbackList(Callbacks):
    """Forwards every event to several callbacks, in their order."""

    def __init__(self, callbacks: Sequence[Callbacks]) -> None:
        self.callbacks = tuple(callbacks)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[str], None]]:
        """Begins the stage in each of the callbacks."""
        with ExitStack() as stack:
            stages = [
                stack.enter_context(callbacks.progress(description, total))
                for callbacks in self.callbacks
            ]

            def advance(item: str) -> None:
                for stage in stages:
                    stage(item)

            yield advance

    def on_start(self, config: Any, first_epoch: int) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_start(config, first_epoch)

    def on_step(self, epoch: Epoch) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_step(epoch)

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_epoch_end(epoch)

    def on_validation_end(self, epoch: Epoch, dice: Mapping[str, float]) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_validation_end(epoch, dice)

    def on_checkpoint_saved(self, path: Path) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_checkpoint_saved(path)

    def on_trial_end(self, trial: Any) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_trial_end(trial)

    def on_window(self, scan: str, finished: int, total: int) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_window(scan, finished, total)

    def on_download(self, name: str, received: int, total: int) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_download(name, received, total)

    def on_end(self, outcome: str) -> None:
        """Forwards the event."""
        for callbacks in self.callbacks:
            callbacks.on_end(outcome)
