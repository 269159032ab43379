"""Combination and strength of adapters: exact in the weights of the merged network."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from fseft import api
from fseft.errors import FseftError
from fseft.model_zoo.adapter_file import (
    change_manifest,
    read_manifest,
    read_tensors,
    write_adapter,
)
from fseft.model_zoo.combination import _SAME, factorise
from fseft.model_zoo.tensor_checks import require_finite
from fseft.schemas import (
    CrossValidation,
    ExpectedDice,
    Manifest,
    Origin,
    Provenance,
    ScanRange,
    Selection,
    Soup,
    Strength,
    Unlabelled,
)
from tests.sample_data import adapt, load_adapter


@pytest.fixture
def adapters(request_for, workspace, tmp_path):
    """Makes one adapter of a method per seed."""

    def make(method, *seeds, settings=()):
        paths = []
        for seed in seeds:
            output = tmp_path / f"{method}-{seed}-{len(settings)}"
            request = request_for(method, seed=seed, settings=settings, output=output)
            paths.append(adapt(request, workspace).adapter)
        return paths

    return make


def merged(path, workspace):
    return load_adapter(path, workspace)[0].state_dict()


def assert_sum(path, terms, workspace, *, rtol=1e-4):
    """The merged weights of an adapter are the weighted sum of others."""
    found = merged(path, workspace)
    states = [(weight, merged(other, workspace)) for weight, other in terms]
    for name, tensor in found.items():
        if tensor.is_floating_point():
            expected = sum(weight * state[name].double() for weight, state in states)
            torch.testing.assert_close(tensor.double(), expected, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "affine", "full", "linear-probe"])
def test_a_combination_is_the_weighted_mean_of_merged_weights(
    method, adapters, workspace, tmp_path
):
    first, second = adapters(method, 0, 1)
    output = tmp_path / "mean.safetensors"
    combined, error = api.combine_adapters(
        [first, second], output, weights=[3, 1], workspace=workspace
    )
    assert_sum(output, [(0.75, first), (0.25, second)], workspace)
    assert error < 1e-5
    expected = "lora" if method == "lora" else "full"
    assert combined.manifest.method.name.endswith(expected)
    support = {name for path in (first, second) for name in read_manifest(path).support}
    assert set(combined.manifest.support) == support


def test_the_manifest_holds_what_is_true_of_all_adapters(adapters, workspace, tmp_path):
    first, second = adapters("lora", 0, 1)
    origin = Origin(sha256="0" * 64, dataset="blobs", cases=("a",))
    choices = {
        "origin": origin,
        "unlabelled": Unlabelled(scans=("u",), sha256="0" * 64),
        "selection": Selection(key="k", method="lora", reason="best"),
        "strength": Strength(value=0.5, dice={"0.5": 0.9}),
        "soup": Soup(chosen="average", dice={}, members=()),
        "cross_validation": CrossValidation(
            folds=(), dice={}, expected={}, mean=ExpectedDice(mean=0.9, low=0.8, high=1, cases=2)
        ),
    }
    near = ScanRange(spacing_mm=(1, 2), extent_mm=(100, 200))
    far = ScanRange(spacing_mm=(0.5, 1), extent_mm=(150, 400))
    extra = Provenance(name="focal", distribution="other", version="2")
    cases = {"support": ("a", "b"), "support_images": ("1", "2")}
    change_manifest(first, dataset="hospital", scans=near, **cases, **choices)
    cases = {"support": ("a",), "support_images": ("3",), "k": 1}
    change_manifest(
        second, scans=far, plugins=(extra,), seed=7, missing_label="unannotated", **cases
    )
    written = {
        *choices,
        "missing_label",
        "support",
        "scans",
        "dataset",
        "k",
        "seed",
        "plugins",
        "mirror",
    }
    combined, _ = api.combine_adapters([first, second], tmp_path / "c", workspace=workspace)
    found = combined.manifest
    assert {name: getattr(found, name) for name in choices} == dict.fromkeys(choices)
    assert (found.dataset, found.support, found.k) == ("hospital, blobs", ("a", "b"), 3)
    assert found.scans == ScanRange(spacing_mm=(0.5, 2), extent_mm=(100, 400))
    assert found.seed is None
    assert found.missing_label == "unannotated"
    assert extra in found.plugins
    assert found.method in found.plugins
    scaled = api.scale_adapter(first, tmp_path / "s", strength=0.5, workspace=workspace).manifest
    assert (scaled.seed, scaled.k, scaled.strength) == (0, 2, None)
    # A field that is added to the manifest is the same in all, computed, or removed.
    same = {*_SAME, "model", "init_seed", "licence", "schema_version", "versions"}
    computed = {"method", "config", "decoder", "bottleneck", "support_images", "trained_parameters"}
    assert set(Manifest.model_fields) - same - computed - written == set()


def test_cases_whose_scans_are_not_known_count_by_dataset_and_name(adapters, workspace, tmp_path):
    first, second = adapters("lora", 0, 1)
    change_manifest(first, dataset="hospital", support=("a", "b"), support_images=())
    change_manifest(second, support=("a",), k=None)
    combined, _ = api.combine_adapters([first, second], tmp_path / "c", workspace=workspace)
    assert combined.manifest.k == 3


def test_a_lower_rank_is_the_nearest_and_its_error_is_returned(adapters, workspace, tmp_path):
    first, second = adapters("lora", 0, 1, settings=("rank=2",))
    _, exact = api.combine_adapters(
        [first, second], tmp_path / "a.safetensors", workspace=workspace
    )
    low, error = api.combine_adapters(
        [first, second], tmp_path / "b.safetensors", rank=1, workspace=workspace
    )
    assert exact < 1e-5 < error < 1
    assert low.manifest.config["rank"] == 1


@pytest.mark.parametrize("method", ["lora", "affine"])
def test_strength_interpolates_between_the_model_and_the_adapter(
    method, adapters, workspace, tmp_path
):
    (adapter,) = adapters(method, 0)
    files = {}
    for strength in (0.0, 0.5, 1.0):
        files[strength] = tmp_path / f"{strength}.safetensors"
        api.scale_adapter(adapter, files[strength], strength=strength, workspace=workspace)
    assert_sum(files[1.0], [(1.0, adapter)], workspace)
    assert_sum(files[0.5], [(0.5, files[0.0]), (0.5, adapter)], workspace)
    base = load_file(workspace.model("tiny") / "weights.safetensors")
    found = merged(files[0.0], workspace)
    body = [name for name in base if found[name].shape == base[name].shape]
    assert len(body) > 4
    for name in body:
        torch.testing.assert_close(found[name], base[name], rtol=1e-5, atol=1e-6)


def test_adapters_that_differ_in_structures_or_do_not_merge_are_refused(
    adapters, request_for, workspace, tmp_path
):
    (first,) = adapters("lora", 0)
    other = adapt(request_for(labels=("tumour",), output=tmp_path / "t"), workspace).adapter
    output = tmp_path / "x.safetensors"
    with pytest.raises(FseftError, match=r"differs from .* in labels"):
        api.combine_adapters([first, other], output, workspace=workspace)
    spatial = adapters("spatial-adapter", 0)
    with pytest.raises(FseftError, match="changes of the method 'spatial-adapter' do not merge"):
        api.scale_adapter(spatial[0], output, strength=0.5, workspace=workspace)
    with pytest.raises(FseftError, match="between 0 and 1"):
        api.scale_adapter(first, output, strength=1.5, workspace=workspace)
    assert not output.exists()


def test_a_value_that_is_not_finite_is_named(adapters, workspace, tmp_path):
    (first,) = adapters("lora", 0)
    tensors = read_tensors(first)
    name = next(iter(tensors))
    tensors[name][...] = torch.nan
    broken = tmp_path / "broken.safetensors"
    write_adapter(broken, tensors, read_manifest(first))
    for call in (
        lambda: api.scale_adapter(broken, tmp_path / "x", strength=0.5, workspace=workspace),
        lambda: api.export(broken, "safetensors", tmp_path / "y", workspace=workspace),
    ):
        with pytest.raises(FseftError, match=r"broken\.safetensors.*contains NaN"):
            call()
    require_finite({"count": torch.tensor(3)}, broken)


def test_factors_of_full_rank_are_exact():
    matrix = torch.randn(6, 9, dtype=torch.float64)
    a, b = factorise(matrix, 6, 2.0)
    torch.testing.assert_close(2.0 * b.double() @ a.double(), matrix, rtol=1e-5, atol=1e-6)
