"""Tests for plugin authors: checks of the plugin interface, and tiny networks to run them on."""

from __future__ import annotations

import pytest

MODULES = (
    "checks",
    "exporters",
    "formats",
    "other_process",
    "metrics",
    "models",
    "network_checks",
    "readers",
    "reporters",
    "resume",
    "method_harness",
    "planners",
    "lazy_imports",
    "training_components",
)
pytest.register_assert_rewrite(*(f"fseft.testing.{module}" for module in MODULES))

# Imported after pytest rewrites their assertions.
from fseft.testing.architectures import architecture_checks  # noqa: E402
from fseft.testing.exporters import exporter_checks, tiny_adapter  # noqa: E402
from fseft.testing.fixtures import only_plugins  # noqa: E402
from fseft.testing.formats import a_segmentation, format_checks  # noqa: E402
from fseft.testing.methods import method_checks  # noqa: E402
from fseft.testing.metrics import metric_checks  # noqa: E402
from fseft.testing.models import model_checks  # noqa: E402
from fseft.testing.planners import a_grid_problem, planner_checks  # noqa: E402
from fseft.testing.readers import reader_checks  # noqa: E402
from fseft.testing.reporters import reporter_checks  # noqa: E402
from fseft.testing.tiny_networks import TINY_NETWORKS, TinyNetwork  # noqa: E402
from fseft.testing.training_components import (  # noqa: E402
    augmentation_checks,
    loss_checks,
    optimizer_checks,
    schedule_checks,
)

__all__ = [
    "TINY_NETWORKS",
    "TinyNetwork",
    "a_grid_problem",
    "a_segmentation",
    "architecture_checks",
    "augmentation_checks",
    "exporter_checks",
    "format_checks",
    "loss_checks",
    "method_checks",
    "metric_checks",
    "model_checks",
    "only_plugins",
    "optimizer_checks",
    "planner_checks",
    "reader_checks",
    "reporter_checks",
    "schedule_checks",
    "tiny_adapter",
]
