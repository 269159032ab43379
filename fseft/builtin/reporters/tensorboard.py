"""The reporter `tensorboard`: loss, learning rate and Dice of each structure in TensorBoard."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fseft.errors import FseftError
from fseft.plugin import ReporterSpec, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ReporterSpec(
    name="tensorboard",
    factory="fseft.builtin.reporters.tensorboard:TensorBoardReporter",
    summary="loss, learning rate and Dice of each structure for TensorBoard (fseft[tensorboard])",
)
FOLDER = "tensorboard"


class TensorBoardReporter:
    """Writes the epochs of a run to event files in `tensorboard/` of its folder.

    A new run replaces them; for a resumed one, TensorBoard discards the epochs that are repeated.

    Args:
        run_folder: Folder of the run.

    Raises:
        FseftError: The package tensorboard is not installed.
    """

    def __init__(self, run_folder: Path) -> None:
        if find_spec("tensorboard") is None:
            cause = "the reporter 'tensorboard' needs the package tensorboard, which is missing"
            raise FseftError(cause, hint="Run `pip install 'fseft[tensorboard]'`.")
        self.folder = run_folder / FOLDER
        self._writer: Any = None

    @hookimpl
    def fseft_run_start(self, epoch: int) -> None:
        """Opens an event file, whose first epoch hides the same and later ones of older files."""
        from torch.utils.tensorboard import SummaryWriter

        if epoch == 1:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._writer = SummaryWriter(str(self.folder), purge_step=epoch)

    @hookimpl
    def fseft_epoch_end(self, epoch: int, metrics: dict[str, float]) -> None:
        """Writes the metrics; those that TensorBoard groups have the same word before the slash."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    @hookimpl
    def fseft_run_end(self) -> None:
        """Closes the event file."""
        self._writer.close()
