"""Several adapters in one prediction: one pass for those on the same features, and one map whose
values are reported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fseft.errors import FseftError
from fseft.evaluation.matching import match_files
from fseft.inference import adapter_groups, segment_case
from fseft.inference.adapter_groups import group_adapters, load_adapter_group, open_adapters
from fseft.inference.index import read_index
from fseft.inference.outputs import merge_labels
from fseft.inference.request import PredictRequest
from fseft.inference.run import predict
from fseft.learn.networks import backbone
from fseft.learn.sliding_window import sliding_window_logits, sliding_window_slabs
from fseft.model_zoo import catalogue
from fseft.volume.geometry import Geometry
from fseft.volume.image import read_labels, read_volume, write_volume
from tests.sample_data import a_scan, adapt, write_model

pytestmark = pytest.mark.full

KIDNEY, TUMOUR = ("Left kidney",), ("tumour",)
GRID = Geometry((32, 32, 32), np.diag([1.5, 1.5, 1.5, 1]))


@pytest.fixture
def adapter_of(request_for, workspace, tmp_path):
    """Make an adapter in a folder of that name."""

    def make(name, method="linear-probe", **changed):
        return adapt(
            request_for(method, output=tmp_path / "runs" / name, **changed), workspace
        ).adapter

    return make


@pytest.fixture
def kidney(adapter_of):
    return adapter_of("kidney", labels=KIDNEY)


@pytest.fixture
def tumour(adapter_of):
    return adapter_of("tumour", labels=TUMOUR)


@pytest.fixture
def request_of(workspace, tmp_path):
    """Segment one new scan, `x`."""
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "x.nii.gz", a_scan(9)[0], GRID)

    def make(*adapters, **changed):
        request = PredictRequest(
            (tmp_path / "in",), tmp_path / "out", open_adapters(adapters, workspace)
        )
        return replace(request, **changed)

    return make


def claiming(monkeypatch, *claims):
    """Let adapters of one structure each give it this logit in the planes from this one on; the
    background has 0.
    """

    def scores(network, prepared, manifest, **_):
        logits = np.zeros((2 * len(claims), *prepared.image.shape[1:]), np.float32)
        for structure, (logit, begin) in zip(logits[1::2], claims, strict=True):
            structure[:] = -1
            structure[begin:] = logit
        yield logits

    monkeypatch.setattr(segment_case, "predict_slabs", scores)


def found(folder):
    return read_labels(folder / "x.nii.gz").array[0]


def passes_of(adapters, workspace):
    opened = open_adapters(adapters, workspace)
    return [[adapter.name for adapter in one] for one in group_adapters(opened)]


# --- passes ---------------------------------------------------------------------------------------


def test_heads_on_the_same_frozen_features_share_a_pass_and_all_others_have_their_own(
    adapter_of, kidney, tumour, workspace
):
    spatial = adapter_of("spatial", "spatial-adapter")
    known = adapter_of("known", "zero-shot")
    tuned = adapter_of("tuned", decoder="fine-tuned")
    white = adapter_of("white", "lora")
    adapters = (kidney, white, tumour, spatial, tuned, known)
    assert passes_of(adapters, workspace) == [
        ["kidney", "tumour", "spatial", "known"],
        ["white"],
        ["tuned"],
    ]


def test_another_backbone_has_a_separate_pass(adapter_of, kidney, workspace):
    write_model(workspace, "other", seed=5)
    assert passes_of((kidney, adapter_of("other", model="other")), workspace) == [
        ["kidney"],
        ["other"],
    ]


def test_a_shared_pass_gives_the_logits_of_each_adapter(adapter_of, kidney, workspace):
    voxel = adapter_of("voxel", "spatial-adapter", settings=("kernel_size=1",))
    opened = open_adapters((kidney, adapter_of("spatial", "spatial-adapter"), voxel), workspace)
    image = np.random.default_rng(0).normal(0, 1, (1, 32, 40, 32)).astype(np.float32)

    def logits(adapters):
        return sliding_window_logits(load_adapter_group(adapters), image, patch_size=(32, 32, 32))

    alone = [logits((adapter,)) for adapter in opened]
    np.testing.assert_allclose(logits(opened), np.concatenate(alone), atol=1e-5)


def test_the_weights_are_hashed_once_for_all_adapters_and_loaded_once_for_a_pass(
    kidney, tumour, workspace, monkeypatch
):
    read = []

    def recorded(function):
        return lambda *arguments, **options: (
            read.append(function.__name__) or function(*arguments, **options)
        )

    monkeypatch.setattr(catalogue, "file_digest", recorded(catalogue.file_digest))
    monkeypatch.setattr(backbone, "load_weights", recorded(backbone.load_weights))
    opened = open_adapters((kidney, tumour), workspace)
    load_adapter_group(opened)
    assert read == ["file_digest", "load_weights"]


def test_adapters_of_another_package_have_a_separate_pass(
    kidney, tumour, adapter_of, workspace, monkeypatch
):
    spatial = adapter_of("spatial", "spatial-adapter")
    monkeypatch.setattr(adapter_groups, "_is_builtin", lambda adapter: adapter.name == "tumour")
    assert passes_of((kidney, tumour, spatial), workspace) == [["kidney", "spatial"], ["tumour"]]


def test_random_networks_share_no_pass(kidney, tumour, workspace):
    opened = open_adapters((kidney, tumour), workspace)
    random = [
        replace(one, manifest=one.manifest.model_copy(update={"backbone_sha256": ""}))
        for one in opened
    ]
    assert len(group_adapters(random)) == 2


def test_the_network_runs_once_for_all(request_of, kidney, tumour, workspace, monkeypatch):
    runs = []

    def counted(*arguments, **options):
        runs.append(options["patch_size"])
        return sliding_window_slabs(*arguments, **options)

    monkeypatch.setattr(segment_case, "sliding_window_slabs", counted)
    predict(request_of(kidney, tumour))
    assert len(runs) == 1


# --- one map --------------------------------------------------------------------------------------


def test_values_stay_where_they_agree_and_are_numbered_where_they_do_not():
    assert merge_labels([{"liver": 4}]) == {"liver": 4}
    assert merge_labels([{"liver": 4, "spleen": 2}, {"aorta": 7, "liver": 4}]) == {
        "liver": 4,
        "spleen": 2,
        "aorta": 7,
    }
    assert merge_labels([{"liver": 4}, {"aorta": 4}]) == {"liver": 1, "aorta": 2}
    assert merge_labels([{"liver": 4}, {"liver": 5}]) == {"liver": 1}


@pytest.mark.parametrize(("overlap", "winner"), [("probability", 7), ("first", 1)])
def test_an_overlap_goes_to_the_surer_or_to_the_first(
    overlap, winner, request_of, kidney, tumour, workspace, tmp_path, monkeypatch
):
    claiming(monkeypatch, (2, 8), (5, 16))
    predict(request_of(kidney, tumour, overlap=overlap))
    middle = found(tmp_path / "out")[::-1, 16, 16]
    assert (middle[4], middle[12], middle[24]) == (0, 1, winner)
    assert read_index(tmp_path / "out" / "predictions.json").labels == {
        "Left kidney": 1,
        "tumour": 7,
    }


def test_the_first_is_the_first_on_the_command_line_also_across_passes(
    request_of, adapter_of, kidney, tumour, workspace, tmp_path, monkeypatch
):
    white = adapter_of("white", "lora", labels=TUMOUR)

    def scores(network, prepared, manifest, **_):
        rows = 2 if manifest.method.name == "lora" else 4
        plane = np.full(prepared.image.shape[1:], 5, np.float32)
        yield np.stack([plane * (row % 2) for row in range(rows)])

    monkeypatch.setattr(segment_case, "predict_slabs", scores)
    spatial = adapter_of("spatial", "spatial-adapter", labels=KIDNEY)
    predict(request_of(white, kidney, spatial, overlap="first"))
    assert set(np.unique(found(tmp_path / "out"))) == {0, 7}


def test_an_adapter_that_finds_nothing_changes_nothing(
    request_of, kidney, tumour, workspace, tmp_path, monkeypatch
):
    claiming(monkeypatch, (2, 8), (-3, 0))
    predict(request_of(kidney, tumour))
    assert set(np.unique(found(tmp_path / "out"))) == {0, 1}


def test_probabilities_are_written_for_each_adapter(
    request_of, kidney, tumour, workspace, tmp_path
):
    request = request_of(kidney, tumour, probabilities=True)
    predict(request)
    folder = tmp_path / "out" / "probabilities"
    for name in ("kidney", "tumour"):
        assert read_volume(folder / name / "x.nii.gz").array.shape == (2, 32, 32, 32)
    predict(replace(request, probabilities=False))
    assert not list(folder.rglob("x.nii.gz"))


# --- a folder for each ----------------------------------------------------------------------------


def test_separate_folders_hold_what_each_adapter_alone_gives(
    request_of, kidney, tumour, workspace, tmp_path
):
    predict(request_of(kidney, tumour, overlap="separate"))
    for name, adapter in (("kidney", kidney), ("tumour", tumour)):
        predict(request_of(adapter, output=tmp_path / name))
        together, alone = tmp_path / "out" / name, tmp_path / name
        np.testing.assert_array_equal(found(together), found(alone))
        assert read_index(together / "predictions.json") == read_index(alone / "predictions.json")


def test_folders_are_named_by_the_parts_of_the_path_that_differ(adapter_of, workspace):
    names = passes_of(
        (adapter_of("a/run", labels=KIDNEY), adapter_of("b/run", labels=TUMOUR)), workspace
    )
    assert names == [["a-run", "b-run"]]


def test_only_what_is_missing_is_made_again(request_of, kidney, tumour, workspace, tmp_path):
    request = request_of(kidney, tumour, overlap="separate")
    predict(request)
    (tmp_path / "out" / "tumour" / "x.nii.gz").unlink()
    before = (tmp_path / "out" / "kidney" / "x.nii.gz").stat().st_mtime_ns
    assert predict(request).segmented == ["x"]
    assert (tmp_path / "out" / "kidney" / "x.nii.gz").stat().st_mtime_ns == before
    assert predict(request).skipped == ["x"]


# --- index and warnings ---------------------------------------------------------------------------


def test_a_scan_is_segmented_again_for_other_adapters_or_another_rule(
    request_of, kidney, tumour, workspace
):
    assert predict(request_of(kidney, tumour)).segmented == ["x"]
    assert predict(request_of(kidney, tumour)).skipped == ["x"]
    assert predict(request_of(kidney, tumour, overlap="first")).segmented == ["x"]
    assert predict(request_of(tumour, kidney, overlap="first")).segmented == ["x"]


def test_the_index_names_all_adapters_and_evaluate_leaves_out_their_training_cases(
    adapter_of, kidney, workspace, blobs, tmp_path
):
    other = adapter_of("other", labels=TUMOUR, cases=("c", "d"))
    seen = {"c", "d"} | set(open_adapters((kidney,), workspace)[0].manifest.support)
    predict(
        PredictRequest(
            (blobs / "imagesTr",), tmp_path / "out", open_adapters((kidney, other), workspace)
        )
    )
    matched = match_files(tmp_path / "out", blobs / "labelsTr")
    assert set(matched.training_cases) == seen
    assert set(matched.adapters.values()) == {str(kidney), str(other)}
    assert not matched.mixed_adapters


def test_the_same_adapter_twice_and_other_channels_are_refused(request_of, kidney, workspace):
    with pytest.raises(FseftError, match="passed twice"):
        predict(request_of(kidney, kidney.parent))
    with pytest.raises(FseftError, match="no adapter was passed"):
        predict(request_of())
