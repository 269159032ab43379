"""The whole adaptation: the choice of the method, and one training or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.adaptation.method_selection import select_method
from fseft.adaptation.run import Adaptation, adapt
from fseft.adaptation.soup import adapt_seeds

if TYPE_CHECKING:
    from fseft.adaptation.request import AdaptConfig
    from fseft.experiment.callbacks import Callbacks
    from fseft.workspace import Workspace


def select_and_adapt(
    config: AdaptConfig, workspace: Workspace, callbacks: Callbacks | None = None
) -> Adaptation:
    """Chooses the method where there are several candidates, and trains with one seed or several.

    Args:
        config: The resolved configuration.
        workspace: Where preprocessed arrays are stored.
        callbacks: Observe the trials and the training.

    Raises:
        FseftError: The folder contains another run, or training fails.
    """
    if len(config.request.candidates) > 1:
        config = select_method(config, workspace, callbacks)
    train = adapt_seeds if config.request.seeds > 1 else adapt
    return train(config, workspace, callbacks)
