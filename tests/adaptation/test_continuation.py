"""An adapter that starts from another one, with more cases or structures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fseft import api
from fseft.adaptation.configure import configure
from fseft.adaptation.continuation import open_origin
from fseft.adaptation.run import build_network
from fseft.errors import FseftError
from fseft.experiment.callbacks import Callbacks
from fseft.model_zoo.adapter_file import read_manifest
from fseft.plugin import MethodSpec
from fseft.registry import registry
from fseft.schemas import Contract, Run
from fseft.volume.image import read_labels
from fseft.workspace import file_digest, read_document
from tests.sample_data import adapt_request, equal_tensors, write_dataset, write_model

METHODS = [
    spec.name
    for spec in registry().specs("method", MethodSpec)
    if spec.trains and spec.needs_model and spec.name not in ("adaptformer", "compacter")
]
"""Without those that need transformer blocks."""
STILL = 1e-30
"""A learning rate at which no weight changes beyond this number."""


@pytest.fixture
def adapt(blobs, workspace):
    """Adapts `tiny` in few steps."""

    def run(model="auto", method="auto", k=1, *, data=blobs, **options):
        quick = {"epochs": 2, "crops_per_step": 1, "feature_passes": 1, "device": "cpu", **options}
        return api.adapt(data, model, method, k, workspace=workspace, **quick)

    return run


@pytest.fixture
def fresh(adapt, tmp_path):
    """An adapter of `tiny` for the left kidney, from one case."""

    def run(method="lora", **options):
        output = tmp_path / f"fresh-{method}"
        return adapt("tiny", method, output=output, **{"labels": ["Left kidney"], **options})

    return run


def untrained(blobs, workspace, adapter, **changed):
    """The network of a training that starts from an adapter, before its first step."""
    origin = open_origin(adapter.path, workspace, None)
    method = origin.manifest.method.name
    request = adapt_request(blobs, "tiny", method, workspace, k=1, origin=origin, **changed)
    return build_network(configure(request, workspace))[1].state_dict()


# --- what is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_before_the_first_step_the_tensors_are_those_of_the_adapter(
    method, fresh, blobs, workspace
):
    adapter = fresh(method)
    tensors = untrained(blobs, workspace, adapter, labels=("Left kidney",))
    assert equal_tensors(tensors, load_file(adapter.path))


@pytest.mark.parametrize("method", METHODS)
def test_a_new_structure_gets_a_row_and_all_other_weights_are_kept(method, fresh, blobs, workspace):
    adapter = fresh(method, labels=["tumour"])
    former, tensors = load_file(adapter.path), untrained(blobs, workspace, adapter)
    extended = {name for name in former if former[name].shape != tensors[name].shape}
    assert {name.rpartition(".")[2] for name in extended} == {"weight", "bias"}
    for name in extended:  # background, left kidney, tumour
        assert torch.equal(tensors[name][[0, 2]], former[name])
    kept = former.keys() - extended
    assert equal_tensors({n: tensors[n] for n in kept}, {n: former[n] for n in kept})


def test_steps_of_no_length_change_no_prediction(adapt, fresh, blobs, tmp_path):
    adapter = fresh(epochs=20, labels=None)
    same = adapt(from_adapter=adapter, learning_rate=STILL, augment=False)
    former, new = load_file(adapter.path), load_file(same.path)
    assert all(torch.allclose(former[name], new[name], 0, 1e-25) for name in former)
    predicted = []
    for name, item in (("former", adapter), ("new", same)):
        api.predict(blobs / "imagesTr", item, tmp_path / name, device="cpu")
        predicted.append(
            [read_labels(path).array for path in sorted((tmp_path / name).glob("*.nii.gz"))]
        )
    assert any(labels.any() for labels in predicted[0])
    assert all(np.array_equal(*pair) for pair in zip(*predicted, strict=True))


def test_model_method_settings_and_preprocessing_are_those_of_the_adapter(adapt, fresh):
    adapter = fresh(rank=2, spacing_mm=(2.0, 2.0, 2.0))
    former, new = adapter.manifest, adapt(k=2, from_adapter=adapter).manifest
    assert (new.model, new.method, new.config) == (former.model, former.method, former.config)
    assert new.preprocessing == former.preprocessing
    assert new.init_seed == former.init_seed


def test_the_statistics_of_intensities_are_those_of_the_adapter(adapt, workspace, tmp_path):
    write_model(workspace, "open", contract=Contract(spacing_mm=(1.5, 1.5, 1.5)))
    first, second = (write_dataset(tmp_path / f"data{seed}", seed=seed) for seed in (0, 50))
    adapter = adapt("open", "lora", data=first)
    assert adapter.manifest.preprocessing.intensity[0].scheme == "clip-zscore"
    new = adapt(data=second, from_adapter=adapter).manifest
    assert new.preprocessing.intensity == adapter.manifest.preprocessing.intensity


def test_structures_of_other_names_start_from_the_rows_that_the_mapping_names(
    fresh, blobs, workspace
):
    adapter = fresh(labels=["tumour"])
    options = {"labels": ("Left kidney",), "mapping": {"Left kidney": "tumour"}}
    assert equal_tensors(untrained(blobs, workspace, adapter, **options), load_file(adapter.path))


def test_structures_of_the_adapter_that_are_left_out_are_named(adapt, fresh, caplog):
    adapter = fresh(labels=None)
    new = adapt(from_adapter=adapter, labels=["tumour"])
    assert "left out: Left kidney" in caplog.text
    assert list(new.labels) == ["tumour"]


# --- what is recorded -----------------------------------------------------------------------------


def test_run_and_manifest_describe_both_trainings(adapt, fresh):
    adapter = fresh()
    new = adapt(k=3, from_adapter=adapter, seed=1)
    origin, former = new.run.origin, adapter.manifest
    assert origin.sha256 == file_digest(adapter.path)
    assert (origin.dataset, origin.k, origin.cases) == ("blobs", 1, former.support)
    assert origin.rows == {"Left kidney": "Left kidney"}
    assert new.manifest.origin == origin.model_copy(update={"path": ""})
    assert set(new.manifest.support) == {
        *former.support,
        *new.run.sources["support cases"].split(", "),
    }
    assert new.manifest.k == len(new.manifest.support) == len(new.manifest.support_images)
    third = adapt(k=4, from_adapter=new)
    assert third.manifest.origin.origin == new.manifest.origin


def test_cases_of_the_adapter_count_although_the_dataset_has_only_new_ones(
    adapt, fresh, workspace, tmp_path
):
    other = write_dataset(tmp_path / "more", seed=9)
    manifest = adapt(k=2, data=other, from_adapter=fresh()).manifest
    assert (manifest.k, manifest.dataset) == (3, "blobs, more")


def test_cases_that_are_trained_on_again_count_once(adapt, fresh, tmp_path):
    other, options = write_dataset(tmp_path / "more", seed=9), {"labels": ["Left kidney"]}
    first = fresh(cases=["a"])
    second = adapt(data=other, from_adapter=first, cases=["a"], **options)
    third = adapt(k=2, data=other, from_adapter=second, cases=["a", "b"], **options).manifest
    assert (third.k, third.dataset, third.support) == (3, "blobs, more", ("a", "b"))
    assert len(third.support_images) == 3


def test_the_folder_of_another_start_is_another_run(adapt, fresh, tmp_path):
    adapter, output = fresh(), tmp_path / "run"
    first = adapt(from_adapter=adapter, output=output)
    written = first.path.stat().st_mtime_ns
    assert adapt(from_adapter=adapter, output=output).path.stat().st_mtime_ns == written
    other = fresh("bias")
    with pytest.raises(FseftError, match="method lora"):
        adapt(from_adapter=other, output=output)
    with pytest.raises(FseftError, match=r"a start from the adapter .* \(requested the model\)"):
        adapt("tiny", "lora", output=output)
    longer = adapt("tiny", "lora", output=tmp_path / "longer", labels=["Left kidney"], epochs=3)
    with pytest.raises(FseftError, match="a start from the adapter"):
        adapt(from_adapter=longer, output=output)
    assert adapt(from_adapter=longer).path.parent != adapt(from_adapter=adapter).path.parent


def test_a_run_is_repeated_from_its_document(adapt, fresh, workspace):
    adapter = fresh()
    run = adapt(k=2, from_adapter=adapter).path.with_name("run.json")
    assert api.options_of_run(run)["from"] == str(adapter.path)


class Interrupt(Callbacks):
    """Interrupts the training after its second epoch, with a checkpoint of the first."""

    def on_epoch_end(self, epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt


def test_an_interrupted_run_resumes_to_the_same_adapter(adapt, fresh, tmp_path):
    adapter = fresh()
    options = {"k": 2, "epochs": 4, "from_adapter": adapter, "checkpoint_seconds": 0}
    output = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        adapt(**options, output=output, callbacks=Interrupt())
    assert read_document(output / "run.json", Run).outcome == "interrupted"
    resumed, whole = adapt(**options, output=output), adapt(**options)
    assert equal_tensors(load_file(resumed.path), load_file(whole.path))


def test_several_seeds_start_from_the_same_adapter(adapt, fresh):
    adapter = fresh()
    new = adapt(from_adapter=adapter, seeds=2)
    members = (new.path.parent / "seeds").glob("*/run.json")
    starts = {json.loads(path.read_text())["origin"]["sha256"] for path in members}
    assert starts == {new.manifest.origin.sha256} == {file_digest(adapter.path)}


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "other"}, "for the model 'tiny', and the model is 'other'"),
        ({"method": "bias"}, "has the method 'lora', and the method is 'bias'"),
        ({"rank": 3}, r"with rank 4 \(requested 3\)"),
        ({"decoder": "frozen"}, r"with decoder fine-tuned \(requested frozen\)"),
        ({"spacing_mm": (3.0, 3.0, 3.0)}, r"1.5×1.5×1.5 mm \(requested 3×3×3 mm\)"),
        ({"plan": "coarse"}, "not 'coarse'"),
        ({"cross_validate": True}, "may be trained on the cases that are left out"),
        ({"output": "origin"}, "contains the adapter to start from"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(adapt, fresh, workspace, options, message):
    write_model(workspace, "other", seed=1)
    adapter = fresh(rank=4)
    if options.get("output"):
        options = {"output": adapter.path.parent}
    before = file_digest(adapter.path)
    with pytest.raises(FseftError, match=message):
        adapt(**options, from_adapter=adapter)
    assert file_digest(adapter.path) == before


def test_other_weights_of_the_model_are_refused(adapt, fresh, workspace):
    adapter = fresh()
    write_model(workspace, seed=1)
    with pytest.raises(FseftError, match="the installed weights of 'tiny' are not those"):
        adapt(from_adapter=adapter)


def test_scans_of_another_modality_are_refused(adapt, fresh, tmp_path):
    data = write_dataset(tmp_path / "mr", channel="MRI")
    with pytest.raises(FseftError, match="was trained on CT, and the scans are MR"):
        adapt(data=data, from_adapter=fresh())


def test_an_adapter_without_training_is_refused(adapt, fresh):
    with pytest.raises(FseftError, match="was not trained: its method is 'zero-shot'"):
        adapt(from_adapter=fresh("zero-shot"))


def test_an_adapter_that_is_replaced_meanwhile_is_refused(fresh, blobs, workspace):
    adapter = fresh()
    origin = open_origin(adapter.path, workspace, None)
    request = adapt_request(blobs, "tiny", "lora", workspace, k=1, origin=origin)
    adapter.path.write_bytes(fresh("lora", epochs=3, overwrite=True).path.read_bytes())
    with pytest.raises(FseftError, match="was replaced"):
        build_network(configure(request, workspace))


def test_a_manifest_without_a_former_adapter_reads_as_before(fresh):
    assert read_manifest(fresh().path).origin is None
