"""Several channels on a model that takes one: the first, their mean, or all of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fseft import api
from fseft.adaptation.configure import configure
from fseft.adaptation.run import build_network
from fseft.errors import FseftError, IncompatibleError
from fseft.inference.scan_files import gather_scans
from fseft.learn.networks import stem
from fseft.learn.networks.backbone import build_network as build
from fseft.learn.networks.backbone import get_architecture, load_weights
from fseft.learn.networks.stem import find_stem, repeat_stem
from fseft.model_zoo.adapter_file import read_manifest
from fseft.registry import registry
from fseft.schemas import Contract, Intensity
from fseft.testing.tiny_networks import TINY_NETWORKS
from fseft.volume.image import read_labels, read_volume, write_volume
from tests.sample_data import HPARAMS, adapt, adapt_request, write_dataset, write_model

SETTINGS = ("epochs=2", "augment=false", "crops_per_step=1")
WHITE_BOX = ["lora", "full", "scratch"]
BLACK_BOX = ["linear-probe", "spatial-adapter"]


def add_channel(folder, second):
    """Adds a channel to the scans of a dataset, which a function computes of the first one."""
    declared = json.loads((folder / "dataset.json").read_text())
    declared["channel_names"] = {"0": "CT", "1": "CT late"}
    (folder / "dataset.json").write_text(json.dumps(declared))
    for path in (folder / "imagesTr").glob("*_0000.nii.gz"):
        volume = read_volume(path)
        target = path.with_name(path.name.replace("_0000", "_0001"))
        write_volume(target, second(volume.array).astype(volume.array.dtype), volume.geometry)
    return folder


@pytest.fixture
def one(tmp_path):
    return write_dataset(tmp_path / "one")


@pytest.fixture
def two(tmp_path):
    """The scans, and the same with another contrast."""
    return add_channel(write_dataset(tmp_path / "two"), lambda image: 100 - image // 2)


def configured(folder, workspace, method="lora", **changed):
    return configure(adapt_request(folder, "tiny", method, workspace, k=2, **changed), workspace)


def mode_of(config):
    return config.plan.preprocessing.channel_mode


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "mode"),
    [("lora", "all"), ("full", "all"), ("linear-probe", "mean"), ("scratch", None)],
)
def test_every_method_takes_the_channels_in_the_best_way_that_it_allows(
    two, workspace, method, mode
):
    config = configured(two, workspace, method)
    assert mode_of(config) == mode
    decision = next(item for item in config.plan.decisions if item.name == "channels")
    assert decision.value == f"{mode or 'all'} of CT, CT late"
    assert decision.reason


def test_one_channel_needs_no_decision(one, workspace):
    config = configured(one, workspace, channels="mean")
    assert mode_of(config) is None
    assert "channels" not in {item.name for item in config.plan.decisions}


def test_a_requested_mode_is_taken_by_plan_and_adaptation(two, workspace):
    _, plan = api.plan(two, "tiny", channels="mean", device="cpu", workspace=workspace)
    assert plan.preprocessing.channel_mode == "mean"
    stored = configured(two, workspace, device="auto")
    assert mode_of(stored) == "mean"
    assert mode_of(configured(two, workspace, channels="first")) == "first"


def test_an_adapter_of_random_weights_continues_with_all_channels_only(two, workspace):
    options = {"workspace": workspace, "device": "cpu", "epochs": 1, "crops_per_step": 1, "k": 1}
    adapter = api.adapt(two, "none", "scratch", **options)
    assert adapter.manifest.preprocessing.channel_mode is None
    for mode in ("first", "mean"):
        with pytest.raises(FseftError, match=rf"`channels` all \(requested {mode}\)"):
            api.adapt(two, from_adapter=adapter, channels=mode, **options)
    continued = api.adapt(two, from_adapter=adapter, channels="all", **options)
    assert continued.manifest.channels == ("CT", "CT late")


def test_methods_on_frozen_features_refuse_all_before_a_case_is_read(two, workspace):
    (two / "imagesTr" / "a_0000.nii.gz").write_bytes(b"damaged")
    with pytest.raises(
        IncompatibleError, match=r"'linear-probe' trains on features.*mean"
    ) as error:
        configured(two, workspace, "linear-probe", channels="all")
    assert len(str(error.value).splitlines()) == 1


def test_a_model_of_other_channels_is_refused(two, workspace):
    from fseft.model_zoo.catalogue import find_model

    model = find_model("tiny", workspace)
    card = model.card
    for channels, chosen, cause in ((3, None, "takes .*3 channels"), (2, "mean", "'mean' is for")):
        contract = card.contract.model_copy(update={"channels": channels})
        other = replace(model, card=card.model_copy(update={"contract": contract}))
        request = adapt_request(two, "tiny", "lora", workspace, k=2, channels=chosen)
        with pytest.raises(FseftError, match=cause):
            configure(replace(request, model=other), workspace)


def test_the_automatic_choice_handles_both_kinds_of_methods(two, workspace):
    from fseft.adaptation.configure import with_method
    from fseft.experiment.settings import configure_method

    config = configured(two, workspace)
    probe = with_method(config, configure_method("linear-probe", {}))
    assert (mode_of(config), mode_of(probe)) == ("all", "mean")
    assert mode_of(with_method(probe, config.request.method)) == "all"


# --- the stem -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TINY_NETWORKS))
@torch.no_grad()
def test_equal_copies_of_a_channel_give_the_output_of_one(name):
    tiny, architecture, count = TINY_NETWORKS[name], get_architecture(name), 3
    options = {"out_channels": 2, "hparams": tiny.hparams, "seed": 0}
    single = build(architecture, in_channels=1, **options).eval()
    several = build(architecture, in_channels=count, **options).eval()
    found = find_stem(name, tiny.hparams, count)
    load_weights(several, repeat_stem(single.state_dict(), found, count), source=name)
    x = torch.randn(1, 1, *tiny.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        several(x.expand(-1, count, -1, -1, -1)), single(x), rtol=1e-4, atol=1e-4
    )


def test_a_stem_that_cannot_be_repeated_is_named_and_the_mean_is_the_default(
    two, workspace, monkeypatch
):
    monkeypatch.setattr(stem, "_ROLES", frozenset())
    stem._find_stem.cache_clear()
    with pytest.raises(FseftError, match=r"repeated over 2 channels: .*weight \(.*encoder\) is"):
        configured(two, workspace, channels="all")
    assert mode_of(configured(two, workspace)) == "mean"
    stem._find_stem.cache_clear()


def test_before_training_all_channels_give_the_output_of_their_mean(two, workspace):
    x = torch.randn(1, 2, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs = []
    for mode, image in (("all", x), ("mean", x.mean(1, keepdim=True))):
        _, adapted = build_network(configured(two, workspace, channels=mode))
        with torch.no_grad():
            outputs.append(adapted.network.eval()(image))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


# --- training and prediction ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "mode"),
    [("lora", "all"), ("lora", "first"), ("linear-probe", "mean"), ("linear-probe", "first")],
)
def test_an_adapter_segments_scans_as_it_was_trained(two, workspace, tmp_path, method, mode):
    settings = (*SETTINGS, "feature_passes=1") if method in BLACK_BOX else SETTINGS
    request = adapt_request(two, "tiny", method, workspace, k=2, settings=settings, channels=mode)
    result = adapt(request, workspace)
    manifest = read_manifest(result.adapter)
    assert manifest.channels == ("CT", "CT late")
    assert manifest.preprocessing.channel_mode == mode
    out = tmp_path / "out"
    api.predict(two / "imagesTr", result.adapter, out, device="cpu", workspace=workspace)
    volume = read_volume([two / "imagesTr" / f"a_000{n}.nii.gz" for n in range(2)])
    adapter = api.Adapter.load(result.adapter, workspace)
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.geometry.affine
    image = volume.array[:1] if mode == "first" else volume.array
    expected = read_labels(out / "a.nii.gz").array[0]
    assert np.array_equal(adapter.segment(image, affine=affine, device="cpu"), expected)


def test_all_trains_and_saves_the_first_layer(two, workspace):
    from safetensors.torch import load_file

    request = adapt_request(two, "tiny", "lora", workspace, k=2, settings=SETTINGS)
    saved = load_file(adapt(request, workspace).adapter)
    for name in find_stem("resunet", HPARAMS, 2):
        layer = name.removesuffix(".weight")
        weight = saved.get(name, saved.get(f"{layer}.parametrizations.weight.original"))
        assert weight is not None
        assert weight.shape[1] == 2
        assert not torch.equal(weight[:, 0], weight[:, 1])


@pytest.mark.full
@pytest.mark.parametrize("method", [*WHITE_BOX, *BLACK_BOX])
def test_a_channel_of_air_changes_nothing(one, tmp_path, workspace, method):
    empty = add_channel(write_dataset(tmp_path / "two"), lambda image: 0 * image - 1000)
    settings = (*SETTINGS[1:], "epochs=10")
    settings = (*settings, "feature_passes=1") if method in BLACK_BOX else settings
    losses = []
    for folder in (one, empty):
        request = adapt_request(folder, "tiny", method, workspace, k=2, settings=settings)
        request = replace(request, output=tmp_path / f"run-{folder.name}")
        losses.append(adapt(request, workspace).run.final_loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.full
@pytest.mark.parametrize("method", sorted(registry().names("method")))
def test_every_method_trains_on_two_channels(two, workspace, method):
    model = "tiny"
    if method in ("adaptformer", "compacter"):
        model = "swin"
        hparams = TINY_NETWORKS["swinunetr"].hparams
        contract = Contract(
            spacing_mm=(1.5, 1.5, 1.5),
            intensity={"ct": Intensity(scheme="window", low=-200, high=500)},
            patch_size=(64, 64, 64),
        )
        write_model(workspace, model, architecture="swinunetr", hparams=hparams, contract=contract)
    settings = ("epochs=1", "feature_passes=1", "crops_per_step=1")
    request = adapt_request(two, model, method, workspace, k=2, settings=settings)
    assert adapt(request, workspace).run.outcome == "finished"


def test_a_channel_without_contrast_is_named(tmp_path, workspace):
    folder = add_channel(write_dataset(tmp_path / "two"), lambda image: 0 * image)
    plan = configured(folder, workspace).plan
    assert any("the channel CT late has one value" in warning for warning in plan.warnings)


def test_pretraining_names_the_channels_that_it_does_not_take(two, workspace):
    with pytest.raises(FseftError, match=r"has 2 channels \(CT, CT late\), and pre-training takes"):
        api.pretrain([two], "new", workspace=workspace, device="cpu")


# --- channels of scans ----------------------------------------------------------------------------


def scans_in(folder, *names, declared=()):
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    if declared:
        content = {"channel_names": {str(n): name for n, name in enumerate(declared)}}
        (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def gathered(folder, channels, required=None):
    scans = gather_scans([folder], channels, required)
    return {name: [path.name for path in paths] for name, paths in scans.items()}


def test_files_are_ordered_by_the_names_of_the_channels(tmp_path):
    declared = ("T2", "FLAIR", "t1")
    folder = scans_in(tmp_path / "a", *(f"p_000{n}.nii" for n in range(3)), declared=declared)
    assert gathered(folder, ("T1", "T2")) == {"p": ["p_0002.nii", "p_0000.nii"]}
    folder = scans_in(tmp_path / "b", "p_T2.nii", "p_t1.nii")
    assert gathered(folder, ("T1", "T2")) == {"p": ["p_t1.nii", "p_T2.nii"]}


def test_channels_of_unknown_names_have_the_order_of_their_numbers(tmp_path):
    folder = scans_in(tmp_path / "a", "p_0000.nii", "p_0001.nii", declared=("MR", "MR"))
    for channels in (("T1", "T2"), ("MR", "MR")):
        assert gathered(folder, channels) == {"p": ["p_0000.nii", "p_0001.nii"]}


def test_the_first_channel_needs_no_other_one(tmp_path):
    folder = scans_in(tmp_path / "a", "p_0000.nii", "p_0001.nii", "q_0000.nii")
    assert gathered(folder, ("T1", "T2"), 1) == {"p": ["p_0000.nii"], "q": ["q_0000.nii"]}


@pytest.mark.parametrize("required", [1, None])
def test_files_without_a_channel_are_not_mixed_with_channels(tmp_path, required):
    folder = scans_in(tmp_path / "a", "p_0000.nii", "p_0001.nii", "q.nii", "p_0002.nii")
    with pytest.raises(FseftError, match=r"no channel.*: p_0002\.nii, q\.nii\. .*separately"):
        gathered(folder, ("T1", "T2"), required)
    assert gathered(folder, ("T1",)).keys() == {"p_0000", "p_0001", "p_0002", "q"}


@pytest.mark.parametrize(
    ("files", "declared", "cause"),
    [
        (["p_0000.nii"], (), r"case p.*has no channel T2 \(_0001\)"),
        (["p_0000.nii", "p_0001.nii"], ("T1", "FLAIR"), "case p.*has no channel T2"),
        (["p_T1.nii", "p_0000.nii", "p_T2.nii"], (), "case p.*3 files with the same name"),
        (["p.nii"], ("T2", "T1"), "has the channels t2, t1 by dataset.json, expected T1, T2"),
    ],
)
def test_a_missing_channel_is_named(tmp_path, files, declared, cause):
    folder = scans_in(tmp_path / "a", *files, declared=declared)
    with pytest.raises(FseftError, match=cause) as error:
        gather_scans([folder], ("T1", "T2"))
    assert len(str(error.value).splitlines()) == 1


def test_adapters_of_other_channels_are_not_used_together(two, one, workspace, tmp_path):
    paths = []
    for folder in (two, one):
        request = adapt_request(folder, "tiny", "lora", workspace, k=1, settings=("epochs=1",))
        request = replace(request, output=tmp_path / f"run-{folder.name}")
        paths.append(adapt(request, workspace).adapter)
    with pytest.raises(FseftError, match=r"takes 1 channel\(s\) \(CT\), .* takes 2 \(CT, CT late"):
        api.predict(two / "imagesTr", paths, tmp_path / "out", device="cpu", workspace=workspace)
