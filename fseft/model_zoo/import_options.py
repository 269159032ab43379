"""Statements of the user about a public checkpoint, which its file does not contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fseft.errors import FseftError

if TYPE_CHECKING:
    from pathlib import Path

    from fseft.schemas import ModelCard

_AXES = ("LR", "AP", "SI")


@dataclass(frozen=True)
class ImportOptions:
    """Statements about a checkpoint.

    Attributes:
        allow_pickle: Whether the file may execute code.
        weights: Name of the set of weights, in a file with several; empty for the usual one.
        orientation: Axes x, y, z of the scans that the model was trained on, such as "LPS".
        like: One of these scans, from which the axes are read instead.
    """

    allow_pickle: bool = False
    weights: str = ""
    orientation: str = ""
    like: Path | None = None

    def apply(self, card: ModelCard) -> ModelCard:
        """Returns the entry of a model with the orientation of its training scans.

        Raises:
            FseftError: The orientation is invalid, or known already.
        """
        orientation = self._orientation()
        if not orientation:
            return card
        if not card.contract.assumed_orientation:
            raise FseftError(f"the orientation of {card.name!r} is known", hint="Leave it out.")
        update = {"orientation": orientation, "assumed_orientation": False}
        return card.model_copy(update={"contract": card.contract.model_copy(update=update)})

    def _orientation(self) -> str:
        """Returns the code of the array axes (z, y, x), or an empty text."""
        from fseft.volume.image import read_volume

        code = self.orientation.upper()
        if code and self.like:
            raise FseftError("orientation and like exclude each other", hint="Pass one of them.")
        if self.like:
            return read_volume(self.like).geometry.orientation
        pairs = sorted(pair for letter in code for pair in _AXES if letter in pair)
        if code and (len(code) != 3 or pairs != sorted(_AXES)):
            raise FseftError(
                f"{self.orientation!r} is not an orientation",
                hint="Take one letter of each pair L/R, A/P, S/I, in the order x, y, z.",
            )
        return code[::-1]
