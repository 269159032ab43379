"""Checkpoints of nnU-Net's family are loaded whole, adapted, and predict; others are refused."""

from __future__ import annotations

import argparse

import pytest
import torch
from safetensors.torch import load_file

from fseft import api
from fseft.api import import_model, verify_model
from fseft.errors import FseftError
from fseft.learn.networks import backbone
from fseft.learn.networks.state_dict_mapping import match_state_dict
from fseft.model_zoo.catalogue import find_model
from fseft.model_zoo.loading import output_channels
from fseft.model_zoo.weights_io import read_weights
from fseft.plugin import FoundationModelSpec
from fseft.registry import registry
from fseft.schemas import ModelCard
from fseft.testing import model_checks
from fseft_nnunet import models

from . import containers

STUNET = {"width": 4, "blocks": 1}
STUNET_PATCH = (32, 32, 64)


def rebuilt(name, store):
    """The network of an imported model, with its weights."""
    card = find_model(name, store).card
    network = backbone.build_network(
        backbone.get_architecture(card.architecture),
        in_channels=card.contract.channels,
        out_channels=output_channels(card),
        hparams=card.hparams,
        seed=1,
    )
    tensors = load_file(find_model(name, store).weights.path)
    backbone.load_weights(network, tensors, source=name, partial=card.scope != "network")
    return network.eval()


@pytest.fixture
def a_stunet(narrow, tmp_path):
    """The entry at small width, its network, and its public file."""
    card = narrow("stunet_s", STUNET_PATCH, **STUNET)
    network = backbone.build_network(
        backbone.get_architecture("stunet"),
        in_channels=1,
        out_channels=105,
        hparams=card.hparams,
        seed=0,
    )
    containers.write_stunet(tmp_path / "small_ep4k.model", network)
    return network.eval(), tmp_path / "small_ep4k.model"


# --- what is loaded -----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    "network_plan", [containers.NETWORK, containers.residual()], ids=["plain", "residual"]
)
@pytest.mark.parametrize("separate_plans", [True, False])
def test_an_imported_model_of_nnunet_computes_the_same(
    network_plan, separate_plans, store, tmp_path
):
    file = containers.write_v2(
        tmp_path, plans_=containers.plans(architecture=network_plan), separate_plans=separate_plans
    )
    report = import_model("nnunet", file, store, name="mine").report
    assert (report.unused, report.missing) == ({}, {})
    x = torch.randn(1, 1, 16, 32, 32)
    torch.testing.assert_close(
        rebuilt("mine", store)(x), containers.a_network(network_plan).eval()(x)[0], rtol=0, atol=0
    )
    assert find_model("mine", store).card.datasets == ("Dataset042_Blobs",)
    verify_model("mine", store)


def test_files_in_the_model_folder_take_precedence_over_copies_in_the_checkpoint(store, tmp_path):
    file = containers.write_v2(tmp_path)
    path = file.parents[1] / "plans.json"
    path.write_text(path.read_text().replace("345.0", "300.0"))
    card = import_model("nnunet", file, store).card
    assert card.contract.intensity["ct"].high == 300
    assert find_model("nnunet", store).card.contract == card.contract


def test_totalsegmentator_is_identified_by_its_number_of_structures(store, tmp_path):
    labels = {"background": 0, **{f"structure_{n}": n for n in range(1, 118)}}
    file = containers.write_v2(
        tmp_path / "3mm", dataset_=containers.dataset(labels=labels), classes=118
    )
    card = import_model("totalsegmentator", file, store).card
    assert (len(card.classes), card.licence, card.contract.orientation) == (
        117,
        "Apache-2.0",
        "SAR",
    )
    part = containers.write_v2(tmp_path / "part")
    with pytest.raises(FseftError, match="has 2 structures, the model at 3 mm has 117"):
        import_model("totalsegmentator", part, store)


def test_the_encoder_of_nnssl_is_loaded_completely(store, narrow, tmp_path):
    narrow("nnssl_resencl", (64, 64, 64), **containers.SMALL_RESENC)
    containers.write_nnssl(tmp_path / "checkpoint_final.pth")
    report = import_model("nnssl_resencl", tmp_path / "checkpoint_final.pth", store).report
    state = rebuilt("nnssl_resencl", store).state_dict()
    assert report.loaded == sum(name.startswith("encoder.") for name in state)
    assert report.unused == {}
    assert set(report.missing) == {"decoder"}


@torch.no_grad()
def test_stunet_is_loaded_completely_from_nnunet_v1_checkpoints(store, a_stunet):
    original, file = a_stunet
    report = import_model("stunet_s", file, store).report
    assert (report.unused, report.missing, report.ignored) == ({}, {}, {"seg_outputs": 8})
    x = torch.randn(1, 1, *STUNET_PATCH)
    assert torch.equal(rebuilt("stunet_s", store)(x), original(x))


# --- what is refused ----------------------------------------------------------------------------


def test_a_file_is_identified_by_its_content(store, a_stunet, tmp_path):
    with pytest.raises(FseftError, match=r"'nnunet'.*looks like that of stunet_b or stunet_h"):
        import_model("nnunet", a_stunet[1], store)
    with pytest.raises(FseftError, match=r"'stunet_s'.*looks like that of nnunet or totalseg"):
        import_model("stunet_s", containers.write_v2(tmp_path), store)


def test_another_size_of_stunet_is_rejected(store, a_stunet):
    with pytest.raises(
        FseftError, match=r"of another shape: .* is 4×1×3×3×3, the network's is 32×1×3×3×3"
    ):
        import_model("stunet_b", a_stunet[1], store)


def test_a_number_of_classes_that_contradicts_the_plans_is_rejected(store, tmp_path):
    file = containers.write_v2(tmp_path, classes=5)
    with pytest.raises(
        FseftError, match=r"of another shape: decoder\.seg_layers\.1\.weight is 5×4×1×1×1"
    ):
        import_model("nnunet", file, store)


def test_a_missing_tensor_is_rejected(store, tmp_path):
    file = containers.write_v2(tmp_path)
    content = read_weights(file)
    del content["network_weights"]["decoder.transpconvs.0.weight"]
    torch.save(content, file.with_name("less.pth"))
    with pytest.raises(
        FseftError, match=r"contains \d+ of the \d+ required tensors \(missing: decoder 1\)"
    ):
        import_model("nnunet", file.with_name("less.pth"), store)


def test_pickled_code_runs_only_if_trusted(store, tmp_path):
    file = containers.write_v2(tmp_path, my_args=argparse.Namespace(lr=1))
    with pytest.raises(
        FseftError, match=r"would execute code from argparse\.Namespace.*allow-pickle"
    ):
        import_model("nnunet", file, store)
    assert import_model("nnunet", file, store, allow_pickle=True).report.loaded > 0


QUICK = {"epochs": 1, "crops_per_step": 1, "early_stopping": False, "device": "cpu"}

# --- what can be done with it -------------------------------------------------------------------


@pytest.mark.parametrize(
    "network_plan", [containers.NETWORK, containers.residual()], ids=["plain", "residual"]
)
def test_a_model_of_nnunet_is_adapted_and_predicts(network_plan, store, blobs, tmp_path):
    import_model(
        "nnunet",
        containers.write_v2(tmp_path, plans_=containers.plans(architecture=network_plan)),
        store,
        name="mine",
    )
    adapter = api.adapt(blobs, "mine", "lora", k=1, workspace=store, **QUICK)
    assert adapter.run.head_rows == {"left kidney": "kidney_left"}
    image = blobs / "imagesTr" / "a_0000.nii.gz"
    assert api.predict(image, adapter, tmp_path / "out", device="cpu").segmented == ["a"]


def test_a_model_whose_orientation_is_unknown_is_not_used_without_training(
    store, blobs, tmp_path, caplog
):
    file = containers.write_v2(tmp_path)
    import_model("nnunet", file, store, name="unknown")
    assert "THE AXES OF THE TRAINING SCANS OF nnunet ARE UNKNOWN: LPS is assumed" in caplog.text
    with pytest.raises(FseftError, match="axes of the training scans of 'unknown' are unknown"):
        api.adapt(blobs, "unknown", "zero-shot", k=1, workspace=store)
    caplog.clear()
    scan = blobs / "imagesTr" / "a_0000.nii.gz"
    import_model("nnunet", file, store, name="known", like=scan)
    assert "UNKNOWN" not in caplog.text
    assert api.adapt(blobs, "known", "zero-shot", k=1, workspace=store, device="cpu").run


def test_stunet_is_adapted_and_predicts(store, a_stunet, blobs, tmp_path):
    import_model("stunet_s", a_stunet[1], store)
    adapter = api.adapt(blobs, "stunet_s", "linear-probe", k=1, workspace=store, **QUICK)
    image = blobs / "imagesTr" / "a_0000.nii.gz"
    assert api.predict(image, adapter, tmp_path / "out", device="cpu").segmented == ["a"]


# --- the public layouts, in full width ----------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "network", "file", "loaded", "parameters"),
    [
        (models.NNUNET, containers.PUBLIC_PLAIN, 292, 100, 31_194_809),
        (models.NNSSL_RESENCL, containers.PUBLIC_RESENC, 956, 224, 90_296_576),
    ],
    ids=["nnunet", "nnssl_resencl"],
)
def test_each_tensor_of_the_public_layout_is_loaded_once(spec, network, file, loaded, parameters):
    with torch.device("meta"):
        tensors = containers.a_network(network, classes=25).state_dict()
        ours = backbone.build_network(
            backbone.get_architecture(spec.card.architecture),
            in_channels=1,
            out_channels=25,
            hparams=spec.card.hparams,
            seed=0,
        )
    report = match_state_dict(tensors, spec.checkpoint, ours.state_dict(keep_vars=True))[1]
    assert (len(tensors), report.loaded, report.parameters, report.unused) == (
        file,
        loaded,
        parameters,
        {},
    )


# --- the entries --------------------------------------------------------------------------------

ENTRIES = [models.NNUNET, models.NNSSL_RESENCL, *models.STUNETS, models.TOTALSEGMENTATOR]


@pytest.mark.parametrize("check", [check for spec in ENTRIES for check in model_checks(spec.name)])
def test_an_entry_keeps_the_contract(check):
    check()


@pytest.mark.parametrize("spec", ENTRIES, ids=lambda spec: spec.name)
def test_an_entry_is_registered_with_a_licence(spec):
    assert isinstance(spec, FoundationModelSpec)
    assert isinstance(spec.card, ModelCard)
    assert spec.name in registry().names("model")
    assert spec.card.licence
    assert spec.card.home.startswith("https://")
    assert spec.card.reference


def test_stunet_has_the_classes_of_totalsegmentator_in_alphabetical_order():
    classes = models.STUNETS[0].card.classes
    assert len(classes) == 104
    assert classes == tuple(sorted(classes))
    assert (classes[0], classes[-1]) == ("adrenal_gland_left", "vertebrae_T9")
