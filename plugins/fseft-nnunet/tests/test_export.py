"""A model folder of nnU-Net v2 has the network of the adapter, and is read again as a model."""

from __future__ import annotations

import json

import dynamic_network_architectures.architectures.unet as unets
import pytest
import torch

from fseft.errors import FseftError
from fseft.schemas import Intensity
from fseft.testing import TinyNetwork, exporter_checks, tiny_adapter
from fseft_nnunet import models, plans
from fseft_nnunet.export import export

from . import containers

SETTINGS = {
    "features_per_stage": (4, 6, 8),
    "kernel_sizes": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
}
NETWORKS = {
    "plainconv": TinyNetwork({**SETTINGS, "n_conv_per_stage": (1, 2, 1)}, (8, 16, 16)),
    "resenc": TinyNetwork({**SETTINGS, "n_blocks_per_stage": (1, 2, 1)}, (8, 16, 16)),
}


def changed_preprocessing(manifest, **changes):
    preprocessing = manifest.preprocessing.model_copy(update=changes)
    return manifest.model_copy(update={"preprocessing": preprocessing})


def read_checkpoint(folder):
    return torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)


@pytest.mark.parametrize(
    "check",
    [
        check
        for name, tiny in NETWORKS.items()
        for check in exporter_checks("nnunet", architecture=name, network=tiny)
    ],
)
def test_the_contract(check):
    check()


@pytest.mark.parametrize("architecture", NETWORKS)
def test_nnunets_own_network_computes_the_same_logits(architecture, tmp_path):
    network, manifest = tiny_adapter(architecture, NETWORKS[architecture])
    export(network, manifest, tmp_path)
    kwargs = json.loads((tmp_path / "plans.json").read_text())["configurations"]["3d_fullres"]
    built = kwargs["architecture"]["arch_kwargs"]
    layers = {**containers.LAYERS, "norm_op_kwargs": built["norm_op_kwargs"]}
    theirs = getattr(unets, kwargs["architecture"]["network_class_name"].rpartition(".")[2])(
        input_channels=1, num_classes=3, deep_supervision=False, **{**built, **layers}
    ).eval()
    theirs.load_state_dict(read_checkpoint(tmp_path)["network_weights"])
    image = torch.randn(2, 1, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(theirs(image), network(image))


@pytest.mark.parametrize("architecture", NETWORKS)
@pytest.mark.parametrize("orientation", ["RAS", "SAR", "ASR"])
def test_the_folder_is_read_again_as_the_same_model(architecture, orientation, tmp_path):
    network, manifest = tiny_adapter(architecture, NETWORKS[architecture])
    clipped = Intensity(scheme="clip-zscore", low=-55, high=345, mean=101.5, std=44.25)
    manifest = changed_preprocessing(manifest, orientation=orientation, intensity=(clipped,))
    export(network, manifest, tmp_path)
    file = tmp_path / "fold_0" / "checkpoint_final.pth"
    card = plans.card(models.NNUNET.card, file, read_checkpoint(tmp_path))
    assert card.architecture == architecture
    assert card.classes == ("liver", "spleen")
    assert card.contract.orientation == orientation
    assert card.contract.spacing_mm == manifest.preprocessing.spacing_mm
    assert card.contract.patch_size == manifest.preprocessing.patch_size
    assert card.contract.intensity == {"ct": clipped}


def test_a_window_is_written_as_clipping_and_scaling(tmp_path):
    network, manifest = tiny_adapter("plainconv", NETWORKS["plainconv"])
    export(network, manifest, tmp_path)
    numbers = json.loads((tmp_path / "plans.json").read_text())[plans.STATISTICS]["0"]
    clipped = [numbers["percentile_00_5"], numbers["percentile_99_5"]]
    assert [(value - numbers["mean"]) / numbers["std"] for value in clipped] == [0, 1]


def test_other_architectures_are_refused_by_name(tmp_path):
    with pytest.raises(FseftError, match=r"resunet.*plainconv and resenc"):
        export(*tiny_adapter(), tmp_path)


def test_a_method_that_adds_layers_is_refused(tmp_path):
    network, manifest = tiny_adapter("plainconv", NETWORKS["plainconv"])
    network.added = torch.nn.Conv3d(3, 3, 1)
    with pytest.raises(FseftError, match="adds layers"):
        export(network, manifest, tmp_path)


def test_normalisation_that_nnunet_lacks_is_refused(tmp_path):
    network, manifest = tiny_adapter("plainconv", NETWORKS["plainconv"])
    manifest = changed_preprocessing(manifest, intensity=(Intensity(scheme="minmax"),))
    with pytest.raises(FseftError, match="no normalisation"):
        export(network, manifest, tmp_path)


def test_a_z_score_over_nonzero_voxels_stays_one(tmp_path):
    network, manifest = tiny_adapter("plainconv", NETWORKS["plainconv"])
    masked = Intensity(scheme="zscore", region="nonzero")
    export(network, changed_preprocessing(manifest, intensity=(masked,)), tmp_path)
    configuration = json.loads((tmp_path / "plans.json").read_text())["configurations"][
        "3d_fullres"
    ]
    assert configuration["use_mask_for_norm"] == [True]


def test_a_warning_names_how_nnunet_preprocesses_differently(tmp_path, caplog):
    network, manifest = tiny_adapter("plainconv", NETWORKS["plainconv"])
    export(network, changed_preprocessing(manifest, interpolation="linear"), tmp_path)
    assert "nnU-Net preprocesses scans differently: it crops to nonzero voxels" in caplog.text
    assert "cubic splines" in caplog.text
    caplog.clear()
    same = {"crop": "nonzero", "clip_first": True, "interpolation": "nnunet", "padding": "zero"}
    (tmp_path / "other").mkdir()
    export(network, changed_preprocessing(manifest, **same), tmp_path / "other")
    assert caplog.text == ""
