"""The Python interface: functions that take plain values, resolve them once, and call the packages.

Datasets, models and workspaces may be paths and names, or the objects that they stand for.
"""

from __future__ import annotations

from fseft.api._adaptation import adapt
from fseft.api._benchmarking import benchmark
from fseft.api._inference import predict
from fseft.api._planning import plan, preprocess
from fseft.inference.adapter import Adapter

__all__ = ["Adapter", "adapt", "benchmark", "plan", "predict", "preprocess"]
