"""The demonstration: the whole workflow on synthetic phantoms."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fseft import api
from fseft.demo.page import write_page
from fseft.demo.results import KNOWN, DemoResult, MethodResult
from fseft.evaluation.matching import match_files
from fseft.evaluation.run import evaluate, write_evaluation
from fseft.logs import captured_records
from fseft.phantom import LEFT_OUT, PhantomSet, write_phantoms
from fseft.planning.dataset_reading import read_dataset
from fseft.registry import registry
from fseft.workspace import Workspace

if TYPE_CHECKING:
    from fseft.demo.results import DemoRequest
    from fseft.experiment.callbacks import Callbacks
    from fseft.schemas import Dataset

logger = logging.getLogger(__name__)

MODEL = "phantom-tiny"
METHODS = ("zero-shot", "linear-probe", "lora", "scratch")
SETTINGS = {"crops_per_step": 2, "early_stopping": False}
"""Two crops per step keep a step under a second on two cores."""
SPACING_MM = 5.0


def run_demo(request: DemoRequest, callbacks: Callbacks | None = None) -> DemoResult:
    """Adapts to phantoms of another scanner with four methods, and writes a page.

    Args:
        request: Options.
        callbacks: Observer of the training.
    """
    workspace = Workspace(request.folder)
    if not (request.data / "dataset.json").is_file():
        _write_data(request)
    logger.info("plan and preprocess")
    dataset = read_dataset(request.data)
    with captured_records():  # warnings about phantoms are of little interest
        api.preprocess(dataset, MODEL, workspace=workspace)
    results = []
    for method in METHODS:
        logger.info("%s: adapt, predict, evaluate", method)
        results.append(_run_method(request, dataset, workspace, method, callbacks))
    return DemoResult(tuple(results), write_page(request, tuple(results)))


def _write_data(request: DemoRequest) -> None:
    logger.info(
        "writing %d labelled and %d unseen phantoms, as from another scanner",
        request.k,
        request.test_cases,
    )
    structures = (*KNOWN, *LEFT_OUT)
    seed = 1000 + request.seed
    write_phantoms(
        request.data,
        PhantomSet(request.data.name, "ct", structures, cases=request.k, seed=seed),
        test_cases=request.test_cases,
        shift=request.shift,
        spacing_mm=SPACING_MM,
    )


def _run_method(
    request: DemoRequest,
    dataset: Dataset,
    workspace: Workspace,
    method: str,
    callbacks: Callbacks | None,
) -> MethodResult:
    with captured_records():
        adapter = api.adapt(
            dataset,
            MODEL,
            method,
            request.k,
            seed=request.seed,
            settings=_settings(request, method),
            minutes=request.minutes,
            device="cpu",
            overwrite=True,
            workspace=workspace,
            callbacks=callbacks,
        )
        output = request.predictions(method)
        api.predict(request.data / "imagesTs", adapter, output, device="cpu")
    scores = evaluate(match_files(output, request.data / "labelsTs"), workers=1)
    write_evaluation(scores, output)
    return MethodResult(method, adapter, scores)


def _settings(request: DemoRequest, method: str) -> dict[str, Any]:
    """Returns the training settings: a fixed number of steps, so that results do not vary."""
    if request.minutes is not None or registry().method(method).access == "black-box":
        return SETTINGS
    return {**SETTINGS, "epochs": request.epochs}
