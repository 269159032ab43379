"""The front door: light to import, two lines to adapt and predict, every name resolved once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import fseft
from fseft import api
from fseft.errors import FseftError
from fseft.learn.networks.backbone import count_parameters
from fseft.model_zoo import adapter_file, catalogue
from fseft.planning import dataset_reading
from fseft.plugin import Config
from fseft.registry import Registry
from fseft.training_config import TrainingConfig
from fseft.volume.image import read_labels, read_volume, write_labels
from fseft.workspace import Workspace
from tests.sample_data import SHAPE, write_dataset

QUICK = {"epochs": 2, "crops_per_step": 1, "early_stopping": False, "device": "cpu"}
LIGHT = """
import json, sys
import fseft
names = dir(fseft)
print(json.dumps([names, sorted({"torch", "numpy", "monai", "SimpleITK"} & set(sys.modules))]))
import fseft.api
fseft.list_methods
assert "torch" not in sys.modules
"""


@pytest.fixture
def adapter(blobs, workspace):
    return fseft.adapt(blobs, "tiny", "lora", k=2, rank=2, workspace=workspace, **QUICK)


@pytest.fixture
def sparse(tmp_path):
    """A dataset with slices that nobody drew, an ignore label, and a case without tumour."""
    folder = write_dataset(tmp_path / "sparse")
    for path in sorted((folder / "labelsTr").iterdir()):
        volume = read_labels(path)
        label = volume.array[0].copy()
        label[np.arange(len(label)) % 3 != 1] = 0
        label[:, 0] = 9
        label[(label == 7) & (path.name == "a.nii.gz")] = 0
        write_labels(path, label, volume.geometry)
    return folder


def test_a_dataset_keeps_the_rules_that_it_was_read_with(sparse, workspace):
    rules = {"ignore_label": 9, "annotated_slices": "auto", "missing_label": "unannotated"}
    dataset = fseft.read_dataset(sparse, **rules)
    kept, plan = fseft.plan(dataset, "tiny", workspace=workspace)
    assert plan.annotated["a"] == ("Left kidney",)
    assert set(kept.partly_annotated()) == {"a", "b", "c", "d"}
    assert (kept, plan) == fseft.plan(sparse, "tiny", workspace=workspace, **rules)
    counted, _ = fseft.plan(dataset, "tiny", annotated_slices="all", workspace=workspace)
    assert counted.cases[0].annotated > kept.cases[0].annotated


def test_the_package_is_light_and_lists_its_interface():
    ran = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    names, heavy = json.loads(ran.stdout)
    assert heavy == []
    assert set(names) == {*api.__all__, "__version__"}


def test_every_name_of_the_interface_is_documented_and_the_same_object():
    for name in api.__all__:
        assert find_spec(f"fseft.{name}") is None  # a submodule would hide it once it is imported
        assert getattr(fseft, name) is getattr(api, name)
        assert getattr(fseft, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'adopt'"):
        _ = fseft.adopt


def test_two_lines_adapt_and_predict(blobs, workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(workspace.root)
    adapter = fseft.adapt(str(blobs), "tiny", "lora", k=2, rank=2, **QUICK)
    result = fseft.predict(
        [blobs / "imagesTr" / "b_0000.nii.gz"], adapter, tmp_path / "out", device="cpu"
    )
    assert result.segmented == ["b"]
    assert read_labels(tmp_path / "out" / "b.nii.gz").array.shape == (1, *SHAPE)
    assert adapter.manifest.config["rank"] == 2


@pytest.fixture
def lookups(monkeypatch):
    """Counts how often datasets, models, methods and adapters are read or looked up."""
    calls = Counter()

    def counted(function):
        def call(*arguments, **options):
            calls[function.__name__] += 1
            return function(*arguments, **options)

        return call

    resolvers = (
        dataset_reading.read_dataset,
        catalogue.find_model,
        catalogue.read_card,
        adapter_file.read_manifest,
    )
    modules = [module for name, module in sys.modules.items() if name.startswith("fseft")]
    for function in resolvers:
        for module in modules:
            if getattr(module, function.__name__, None) is function:
                monkeypatch.setattr(module, function.__name__, counted(function))
    monkeypatch.setattr(Registry, "method", counted(Registry.method))
    return calls


@pytest.mark.parametrize("command", ["plan", "preprocess"])
def test_a_plan_reads_the_dataset_and_the_model_once(command, blobs, workspace, lookups):
    getattr(fseft, command)(blobs, "tiny", device="cpu", workspace=workspace)
    assert lookups == {"read_dataset": 1, "find_model": 1, "read_card": 1}


def test_an_adaptation_resolves_dataset_model_and_method_once(blobs, workspace, lookups):
    fseft.adapt(blobs, "tiny", "linear-probe", k=1, workspace=workspace, **QUICK)
    assert lookups == {"read_dataset": 1, "find_model": 1, "read_card": 1, "method": 1}


def test_a_prediction_resolves_each_adapter_and_their_model_once(
    adapter, blobs, workspace, tmp_path, lookups
):
    other = fseft.adapt(blobs, "tiny", "bias", k=1, workspace=workspace, **QUICK)
    lookups.clear()
    scan = blobs / "imagesTr" / "b_0000.nii.gz"
    options = {"device": "cpu", "workspace": workspace}
    fseft.predict([scan], [adapter.path, other.path], tmp_path / "out", **options)
    assert lookups == {"read_manifest": 2, "method": 2, "find_model": 1, "read_card": 1}


def test_a_benchmark_resolves_its_models_and_methods_once(blobs, workspace, tmp_path, lookups):
    methods = ["linear-probe", "bias"]
    options = {"ks": [1], "test": ["c"], "device": "cpu", "workspace": workspace}
    settings = {key: value for key, value in QUICK.items() if key != "device"}
    fseft.benchmark(blobs, "tiny", methods, tmp_path / "out", settings=settings, **options)
    trials = len(methods)  # whose adapters are opened to predict
    assert lookups == {
        "read_dataset": 1,
        "find_model": 1,
        "read_card": 1,
        "method": len(methods) + trials,
        "read_manifest": trials,
    }


def test_a_pre_training_reads_each_dataset_and_the_initial_model_once(blobs, workspace, lookups):
    fseft.pretrain(
        [blobs],
        "next",
        init="tiny",
        window=(-200, 500),
        patch_size=(32, 32, 32),
        settings={"epochs": 1},
        steps_per_epoch=1,
        device="cpu",
        workspace=workspace,
    )
    assert lookups == {"read_dataset": 1, "find_model": 1, "read_card": 1}


def test_an_adapter_segments_an_array_as_it_segments_the_file(adapter, blobs, tmp_path):
    scan = blobs / "imagesTr" / "c_0000.nii.gz"
    fseft.predict(scan, adapter, tmp_path / "out", device="cpu")
    volume = read_volume(scan)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.affine  # to RAS
    labels = adapter.segment(volume.array, affine=affine, device="cpu")
    np.testing.assert_array_equal(labels, read_labels(tmp_path / "out" / "c.nii.gz").array[0])
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, *adapter.labels.values()}


def test_a_spacing_stands_for_an_image_in_ras_orientation(adapter):
    image = np.random.default_rng(0).normal(0, 100, SHAPE)
    by_spacing = adapter.segment(image, spacing_mm=(1.5, 1.5, 2), device="cpu")
    by_affine = adapter.segment(image[None], affine=np.diag([1.5, 1.5, 2, 1]), device="cpu")
    np.testing.assert_array_equal(by_spacing, by_affine)
    assert by_spacing.shape == SHAPE


@pytest.mark.parametrize(
    ("shape", "position", "message"),
    [
        ((2, 8, 8, 8), {"spacing_mm": (1, 1, 1)}, "does not fit an adapter of 1 channel"),
        ((8, 8), {"spacing_mm": (1, 1, 1)}, r"an image of shape \(8, 8\)"),
        ((8, 8, 8), {}, "position of the image is not defined"),
        ((8, 8, 8), {"spacing_mm": (1, 1, 1), "affine": np.eye(4)}, "either affine or spacing_mm"),
        (
            (8, 8, 8),
            {"affine": np.eye(4), "tta": True},
            "needs an adapter that was trained with mirroring",
        ),
        ((8, 8, 8), {"affine": np.zeros((4, 4))}, "not an invertible 4x4 matrix"),
    ],
)
def test_an_image_without_a_place_is_refused(shape, position, message, adapter):
    with pytest.raises(FseftError, match=message):
        adapter.segment(np.zeros(shape), **position)


def test_an_adapter_is_a_plain_module_with_its_documents(adapter, workspace):
    loaded = fseft.Adapter.load(adapter.path.parent, workspace)
    assert (loaded.manifest, loaded.run) == (adapter.manifest, adapter.run)
    assert loaded.run.trained_parameters < count_parameters(loaded.network)
    logits = loaded.network(torch.zeros(1, 1, 32, 32, 32))
    assert logits.shape == (1, 1 + len(loaded.labels), 32, 32, 32)


def test_another_file_is_refused_when_it_is_loaded(tmp_path):
    with pytest.raises(FseftError, match="the adapter does not exist"):
        fseft.Adapter.load(tmp_path / "nowhere")


def test_settings_may_be_objects_or_keywords(blobs, workspace, tmp_path):
    class RankConfig(Config):
        rank: int = 8

    training = TrainingConfig(epochs=1, crops_per_step=1, early_stopping=False)
    options = {"device": "cpu", "workspace": workspace, "output": tmp_path / "run"}
    config = RankConfig(rank=2)
    adapter = fseft.adapt(blobs, "tiny", "lora", k=1, config=config, training=training, **options)
    assert (adapter.manifest.config["rank"], adapter.run.epochs) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rnak": 4}, "no setting 'rnak'. Did you mean rank"),
        ({"method": "lara"}, "unknown method 'lara'. Did you mean lora"),
        ({"model": "tinny"}, "unknown model 'tinny'. Did you mean tiny"),
        ({"dataset": "nowhere"}, "does not exist"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(arguments, message, blobs, workspace):
    options = {"dataset": blobs, "model": "tiny", "method": "lora", **arguments}
    with pytest.raises(FseftError, match=message):
        fseft.adapt(k=1, workspace=workspace, **options)


def test_methods_and_models_are_listed(workspace):
    assert {"lora", "linear-probe"} <= set(fseft.list_methods())
    assert {"tiny", "phantom-tiny", "none"} <= set(fseft.list_models(workspace))


def test_a_model_is_loaded_with_its_own_or_with_a_new_head(workspace):
    image = torch.zeros(1, 1, 32, 32, 32)
    own = fseft.load_model("tiny", workspace=workspace)
    new = fseft.load_model("tiny", ["kidney_left", "cyst", "tumour"], workspace=workspace)
    assert own(image).shape == (1, 3, 32, 32, 32)
    assert new(image).shape == (1, 4, 32, 32, 32)
    torch.testing.assert_close(own(image)[:, 1], new(image)[:, 1])
    with pytest.raises(FseftError, match="has no classes"):
        fseft.load_model("none")
    assert fseft.load_model("none", ["liver"])(torch.zeros(1, 1, 64, 64, 64)).shape[1] == 2


def test_an_unknown_option_of_pre_training_is_refused(blobs, tmp_path):
    with pytest.raises(FseftError, match=r"no option 'sede'\. Did you mean seed"):
        fseft.pretrain(blobs, "mine", sede=1, workspace=tmp_path)
    with pytest.raises(FseftError, match=r"unknown device 'tpu'"):
        fseft.pretrain(blobs, "mine", device="tpu", workspace=tmp_path)
    with pytest.raises(FseftError, match=r"has a setting 'epoch'\. Did you mean epochs"):
        fseft.pretrain(blobs, "mine", settings={"epoch": 1}, workspace=Workspace(tmp_path))
