"""The checkpoint of a run, from which it resumes, or continues with a larger budget."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fseft.experiment.checkpoints import save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fseft.adaptation.request import AdaptConfig
    from fseft.experiment.callbacks import Callbacks

logger = logging.getLogger(__name__)


class CheckpointFile:
    """The checkpoint of a run, with the time budget that it was trained for."""

    def __init__(self, config: AdaptConfig, path: Path, callbacks: Callbacks) -> None:
        self.path, self.callbacks = path, callbacks
        self.budget = [config.request.minutes, config.training.epochs]
        self.kept = "no epoch was saved yet"

    def extended(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """Returns a loaded state; one that ended by another budget continues."""
        if state and state.get("budget", self.budget) != self.budget:
            return {**state, "stopped_by": ""}
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Writes a state."""
        save_checkpoint(self.path, {**state, "budget": self.budget})
        self.kept = f"the checkpoint after epoch {len(state['losses'])} is kept"
        self.callbacks.on_checkpoint_saved(self.path)

    @contextmanager
    def named_if_interrupted(self) -> Iterator[None]:
        """Logs what was saved if Ctrl-C or SIGTERM ends the context."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            logger.warning("stopped: %s", self.kept)
            raise
