"""Registers the methods with fseft; imports neither torch nor PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fseft.plugin import MethodSpec, hookimpl
from fseft_hf_peft.config import config_type
from fseft_hf_peft.tuners import TUNERS

if TYPE_CHECKING:
    from collections.abc import Iterator

FSEFT_API = 1


@hookimpl
def fseft_methods() -> Iterator[MethodSpec]:
    """Returns one method per tuner."""
    for tuner in TUNERS:
        yield MethodSpec(
            name=tuner.method,
            factory=tuner.factory,
            summary=tuner.summary,
            config=config_type(tuner),
            reference=tuner.reference,
        )
