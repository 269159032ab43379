"""Another process, which has nothing of this one but what a file holds."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from safetensors.torch import load, save

from fseft.registry import Registry, discover
from fseft.testing.method_harness import MethodHarness

if TYPE_CHECKING:
    from torch import Tensor


def output_elsewhere(subject: MethodHarness) -> Tensor:
    """Of the trained adapter, saved here, loaded on a base that another process makes."""
    told = (
        subject.name,
        subject.settings,
        subject.decoder,
        subject.architecture_name,
        subject.toy,
        subject.tolerance,
    )
    content = save(subject.trained.state_dict())
    try:
        return load(_process().submit(_output, told, content).result())["output"]
    except BrokenProcessPool:
        _process.cache_clear()
        raise


@lru_cache(maxsize=1)
def installed() -> Registry:
    """What another process finds."""
    return discover()


@lru_cache(maxsize=1)
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _output(told: tuple[Any, ...], content: bytes) -> bytes:
    subject = MethodHarness(*told)
    adapted = subject.adapted()
    adapted.load_state_dict(load(content))
    adapted.network.eval()
    return save({"output": subject.output(adapted.network).contiguous()})
