"""Runs an adapter in another process, which shares nothing with this one but a file's content."""

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


def output_in_other_process(subject: MethodHarness) -> Tensor:
    """Returns the output of the trained adapter, loaded on a base that another process builds.

    Returns:
        Logits (1, classes, i, j, k).
    """
    fields = (
        subject.name,
        subject.settings,
        subject.decoder,
        subject.architecture_name,
        subject.tiny,
        subject.tolerance,
    )
    content = save(subject.trained.state_dict())
    try:
        return load(_process().submit(_output, fields, content).result())["output"]
    except BrokenProcessPool:
        _process.cache_clear()
        raise


@lru_cache(maxsize=1)
def installed() -> Registry:
    """Returns the registry of a new process, without registrations of this one."""
    return discover()


@lru_cache(maxsize=1)
def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _output(fields: tuple[Any, ...], content: bytes) -> bytes:
    subject = MethodHarness(*fields)
    adapted = subject.adapted()
    adapted.load_state_dict(load(content))
    adapted.network.eval()
    return save({"output": subject.output(adapted.network).contiguous()})
