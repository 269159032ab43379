"""Adapter files: their content, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fseft.errors import FseftError, PluginError
from fseft.inference.adapter_groups import open_adapters
from fseft.model_zoo import adapter_file
from fseft.model_zoo.adapter_file import apply_method, read_manifest, write_adapter
from fseft.model_zoo.catalogue import find_model
from fseft.model_zoo.loading import build_adaptable_network
from fseft.registry import registry
from fseft.schemas import Intensity, Manifest, Preprocessing, Provenance
from tests.sample_data import adapt, load_adapter, write_model


@pytest.fixture
def manifest():
    how = Preprocessing(
        orientation="RAS",
        spacing_mm=(1.5, 1, 0.7),
        modality="ct",
        intensity=(Intensity(scheme="window", low=-200, high=500),),
        patch_size=(32, 32, 48),
    )
    return Manifest(
        method=Provenance(name="lora", distribution="fseft", version="1"),
        config={"rank": 4, "parts": ["encoder"]},
        model="tiny",
        backbone_sha256="ab",
        architecture="resunet",
        hparams={"channels": [4, 8]},
        decoder="frozen",
        preprocessing=how,
        channels=("CT",),
        labels={"Niere, «links»": 3, "a": 70},
        support=("x", "y"),
        dataset="d",
        init_seed=7,
        trained_parameters=12,
    )


def test_tensors_and_manifest_come_back_as_written(manifest, tmp_path):
    tensors = {"b": torch.randn(3, 2), "a": torch.arange(4)}
    write_adapter(tmp_path / "run" / "adapter.safetensors", tensors, manifest)
    for path in (tmp_path / "run", tmp_path / "run" / "adapter.safetensors"):
        assert read_manifest(path) == manifest
    read = load_file(tmp_path / "run" / "adapter.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_flipped_bit_anywhere_is_found(manifest, tmp_path):
    """In the tensors, the manifest or the description of the tensors; not in filling spaces."""
    path = tmp_path / "adapter.safetensors"
    tensors = {"a": torch.arange(40.0).to(torch.bfloat16), "b": torch.tensor(True)}
    write_adapter(path, tensors, manifest)
    intact = path.read_bytes()
    assert adapter_file.is_intact(path)
    key = intact.index(adapter_file.DIGEST.encode())  # without it, the file is of an older version
    for position in range(0, len(intact), 7):
        if key <= position < key + len(adapter_file.DIGEST) or intact[position] == ord(" "):
            continue
        damaged = bytearray(intact)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert not adapter_file.is_intact(path), position


def test_equal_adapters_are_equal_files(manifest, tmp_path):
    contents = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        write_adapter(path, {"b": torch.ones(3), "a": torch.zeros(2)}, manifest)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_an_adapter_without_digest_is_read(manifest, tmp_path):
    """As earlier versions wrote them."""
    path = tmp_path / "adapter.safetensors"
    save_file({"a": torch.ones(3)}, path, metadata={"fseft": manifest.model_dump_json()})
    assert torch.equal(adapter_file.read_tensors(path)["a"], torch.ones(3))


def test_an_adapter_that_is_replaced_while_it_is_read_is_refused(request_for, workspace, tmp_path):
    result = adapt(request_for(), workspace)
    (adapter,) = open_adapters((result.adapter,), workspace)
    other = adapt(request_for(seed=1, output=tmp_path / "other"), workspace)
    result.adapter.write_bytes(other.adapter.read_bytes())
    with pytest.raises(FseftError, match="the adapter was replaced while it was read"):
        adapter_file.load_adapter(adapter)


def test_a_file_that_is_not_an_adapter_is_refused(manifest, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    save_file(
        {"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"fseft": '{"model": 3}'}
    )
    (tmp_path / "text.safetensors").write_text("no tensors here")
    write_adapter(tmp_path / "whole.safetensors", {"a": torch.zeros(100)}, manifest)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-9])
    for name, message in (
        ("missing", "the adapter does not exist"),
        ("plain", "is not an adapter of fseft"),
        ("odd", "is not a valid manifest of an adapter"),
        ("text", "is not a safetensors file"),
        ("cut", "is not a safetensors file"),
    ):
        with pytest.raises(FseftError, match=message) as caught:
            read_manifest(tmp_path / f"{name}.safetensors")
        assert name in str(caught.value)


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe", "lora", "full", "scratch"])
def test_a_restored_network_is_the_adapted_one(method, request_for, workspace):
    model = "none" if method == "scratch" else "tiny"
    result = adapt(request_for(method, model=model), workspace)
    (adapter,) = open_adapters((result.adapter,), workspace)
    restored, manifest = adapter_file.load_adapter(adapter), adapter.manifest
    architecture, network, _ = build_adaptable_network(
        adapter.card, adapter.weights, manifest.labels, 1, seed=manifest.init_seed
    )
    adapted = apply_method(architecture, network, adapter.method, manifest.init_seed)
    adapted.load_state_dict(load_file(result.adapter))
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert torch.allclose(restored.eval()(x), adapted.network.eval()(x), atol=1e-4)
    assert not any("parametrizations" in name for name in restored.state_dict())


@pytest.mark.parametrize("how", ["fine-tuned", "low-rank"])
def test_a_tuned_bottleneck_is_in_the_adapter_and_comes_back(how, request_for, workspace, tmp_path):
    plain = adapt(request_for("bias", output=tmp_path / "plain"), workspace)
    result = adapt(request_for("bias", bottleneck=how, output=tmp_path / how), workspace)
    assert result.run.trained_parameters > plain.run.trained_parameters
    restored, manifest = load_adapter(result.adapter, workspace)
    assert (manifest.decoder, manifest.bottleneck) == ("fine-tuned", how)
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        assert not torch.equal(
            restored.eval()(x), load_adapter(plain.adapter, workspace)[0].eval()(x)
        )


@pytest.mark.parametrize(
    ("method", "changed", "message"),
    [
        (
            "full",
            {"decoder": "low-rank"},
            "trains the whole decoder: low-rank would change nothing",
        ),
        ("full", {"bottleneck": "low-rank"}, "trains the whole bottleneck"),
        ("decoder-only", {"decoder": "frozen"}, "trains the whole decoder"),
        ("zero-shot", {"bottleneck": "new"}, "trains nothing, also no bottleneck"),
    ],
)
def test_the_mode_of_a_part_that_a_method_trains_is_refused(
    method, changed, message, request_for, workspace
):
    with pytest.raises(FseftError, match=message):
        adapt(request_for(method, **changed), workspace)


def test_a_method_that_changes_layers_is_refused_as_black_box(request_for, workspace, monkeypatch):
    spec = replace(registry().method("affine"), access="black-box")
    monkeypatch.setattr(registry(), "method", lambda *_: spec)
    with pytest.raises(
        PluginError,
        match="which is not part of the head, but the method is declared black-box",
    ):
        adapt(request_for("affine", decoder="frozen"), workspace)


def test_another_version_of_a_plugin_is_reported(request_for, workspace, monkeypatch, caplog):
    result = adapt(request_for("linear-probe"), workspace)
    manifest = read_manifest(result.adapter)
    made = manifest.method.model_copy(update={"distribution": "foreign", "version": "1.0"})
    write_adapter(
        result.adapter, load_file(result.adapter), manifest.model_copy(update={"method": made})
    )
    here = Provenance(name="linear-probe", distribution="foreign", version="2.0")
    monkeypatch.setattr(registry(), "provenance", lambda *_: here)
    spec = registry().method("linear-probe")
    monkeypatch.setattr(registry(), "method", lambda *_: spec)
    open_adapters((result.adapter,), workspace)
    assert "was trained with foreign 1.0, and 2.0 is installed" in caplog.messages[-1]


def test_half_precision_is_half_the_size_and_nearly_the_same_network(
    request_for, workspace, tmp_path
):
    whole, half = (
        adapt(request_for("lora", half=h, output=tmp_path / str(h)), workspace).adapter
        for h in (False, True)
    )
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        outputs = [load_adapter(path, workspace)[0].eval()(x) for path in (whole, half)]
    assert torch.allclose(*outputs, atol=0.02)


def test_an_adapter_of_other_weights_is_refused(request_for, workspace):
    result = adapt(request_for(), workspace)
    write_model(workspace, seed=99)
    with pytest.raises(
        FseftError, match=r"the adapter is for another backbone.*'tiny'.*sha256"
    ) as caught:
        load_adapter(result.adapter, workspace)
    assert str(result.adapter) in str(caught.value)


def test_an_adapter_whose_model_is_gone_names_it(request_for, workspace):
    result = adapt(request_for(), workspace)
    (workspace.model("tiny") / "weights.safetensors").unlink()
    with pytest.raises(FseftError, match="the weights of the model 'tiny' are missing"):
        load_adapter(result.adapter, workspace)
    (workspace.model("tiny") / "model.json").unlink()
    with pytest.raises(FseftError, match="unknown model 'tiny'"):
        load_adapter(result.adapter, workspace)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"config": {"no": 1}}, "does not accept these settings"),
        (
            {"method": Provenance(name="lora", distribution="fseft-other", version="1.2")},
            "needs the method 'lora' of the package fseft-other 1.2, which is not installed",
        ),
        ({"decoder": "frozen"}, "does not fit the network"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    changed, message, request_for, workspace, tmp_path
):
    result = adapt(request_for("lora"), workspace)
    manifest = read_manifest(result.adapter).model_copy(update=changed)
    write_adapter(tmp_path / "adapter.safetensors", load_file(result.adapter), manifest)
    with pytest.raises(FseftError, match=message):
        load_adapter(tmp_path, workspace)


def test_weights_that_are_not_those_of_the_card_are_refused(workspace):
    write_model(workspace, sha256="0" * 64)
    with pytest.raises(
        FseftError, match="the weights of the model 'tiny' have changed on the disk"
    ):
        _ = find_model("tiny", workspace).weights


@pytest.mark.parametrize("missing", ["lora-k5-s1", "lora-k5-s1/adapter.safetensors"])
def test_a_missing_run_is_answered_with_similar_runs_of_its_folder_only(missing, tmp_path):
    for name in ("lora-k5-s0", "unrelated"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "adapter.safetensors").touch()
    with pytest.raises(FseftError, match=r"Did you mean \S*lora-k5-s0\?$"):
        read_manifest(tmp_path / "runs" / missing)
    with pytest.raises(FseftError, match=r"Pass the adapter\.safetensors of a finished run"):
        read_manifest(tmp_path / "other" / "adapter.safetensors")
    with pytest.raises(FseftError, match=r"Did you mean \S*lora-k5-s0 or \S*unrelated\?$"):
        read_manifest(tmp_path / "runs")
