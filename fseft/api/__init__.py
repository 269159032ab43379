"""The Python interface: functions that take plain values, resolve them once, and call the packages.

Datasets, models and workspaces may be paths and names, or the objects that they stand for.
Importing this module does not import PyTorch; `import fseft` offers the same names.
"""

from __future__ import annotations

from fseft.api._adaptation import adapt
from fseft.api._adapters import combine_adapters, scale_adapter
from fseft.api._benchmarking import benchmark
from fseft.api._components import (
    Component,
    get_component,
    list_components,
    list_methods,
    list_plugins,
    new_plugin,
)
from fseft.api._config_files import options_of_run, read_config, write_config
from fseft.api._diagnostics import check_installation
from fseft.api._evaluation import evaluate
from fseft.api._export import export
from fseft.api._inference import predict
from fseft.api._models import (
    get_model,
    import_model,
    list_models,
    load_model,
    pull_model,
    verify_model,
)
from fseft.api._phantom import write_phantoms
from fseft.api._planning import clean, describe_dataset, plan, preprocess, read_dataset
from fseft.api._pretraining import pretrain
from fseft.api._report import report
from fseft.experiment.callbacks import Callbacks
from fseft.inference.adapter import Adapter
from fseft.workspace import Workspace

__all__ = [
    "Adapter",
    "Callbacks",
    "Component",
    "Workspace",
    "adapt",
    "benchmark",
    "check_installation",
    "clean",
    "combine_adapters",
    "describe_dataset",
    "evaluate",
    "export",
    "get_component",
    "get_model",
    "import_model",
    "list_components",
    "list_methods",
    "list_models",
    "list_plugins",
    "load_model",
    "new_plugin",
    "options_of_run",
    "plan",
    "predict",
    "preprocess",
    "pretrain",
    "pull_model",
    "read_config",
    "read_dataset",
    "report",
    "scale_adapter",
    "verify_model",
    "write_config",
    "write_phantoms",
]
