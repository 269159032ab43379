"""Log records are captured in a worker and replayed in the main process."""

from __future__ import annotations

import logging
import pickle

from fseft.logs import captured_records, replay

logger = logging.getLogger("fseft.test")


def test_captured_records_are_not_emitted_and_can_be_pickled(caplog):
    with captured_records() as records:
        logger.warning("%d voxels thick", 2)
        try:
            {}["attn"]
        except KeyError:
            logger.debug("no such layer", exc_info=True)
    assert caplog.records == []
    warning, failure = pickle.loads(pickle.dumps(records))  # noqa: S301
    assert warning.getMessage() == "2 voxels thick"
    assert "KeyError: 'attn'" in failure.exc_text


def test_replay_respects_the_level(caplog):
    with captured_records() as records:
        logger.debug("detail")
        logger.warning("important")
    with caplog.at_level(logging.INFO, "fseft"):
        replay(records)
    assert caplog.messages == ["important"]
