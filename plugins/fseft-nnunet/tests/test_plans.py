"""The card of a model of nnU-Net v2 is what its plans say; what cannot be done here is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fseft.errors import FseftError
from fseft.model_zoo.import_options import ImportOptions
from fseft.schemas import Intensity
from fseft.volume.geometry import Geometry, reorient
from fseft.volume.image import write_volume
from fseft_nnunet import models, plans

from . import containers

Z_SCORE = Intensity(scheme="zscore")


@pytest.fixture
def card_of(tmp_path):
    """The card that the entry `nnunet` makes of these plans and this dataset."""

    def make(plans_=None, dataset_=None, configuration="3d_fullres", entry=models.NNUNET.card):
        folder = tmp_path / "model"
        (folder / "fold_0").mkdir(parents=True, exist_ok=True)
        (folder / "plans.json").write_text(json.dumps(plans_ or containers.plans()))
        (folder / "dataset.json").write_text(json.dumps(dataset_ or containers.dataset()))
        content = {"init_args": {"configuration": configuration}}
        return plans.card(entry, folder / "fold_0" / "checkpoint_final.pth", content)

    return make


def test_ct_is_clipped_and_scaled_by_the_numbers_of_the_plans(card_of):
    ct = Intensity(scheme="clip-zscore", low=-55, high=345, mean=101.5, std=44.25)
    assert card_of().contract.intensity == {"ct": ct}


def test_plans_of_the_first_releases_are_read_with_other_keys_of_the_statistics(card_of):
    old = containers.plans()
    old["foreground_intensity_properties_by_modality"] = old.pop(
        "foreground_intensity_properties_per_channel"
    )
    assert card_of(old).contract == card_of().contract


def test_other_modalities_have_a_z_score_per_case(card_of):
    schemes = {
        "normalization_schemes": ["ZScoreNormalization"] * 2,
        "use_mask_for_norm": [False, False],
    }
    card = card_of(
        containers.plans(**schemes), containers.dataset(channel_names={"0": "T1", "1": "T2"})
    )
    assert card.contract.intensity == {"mr": Z_SCORE, "other": Z_SCORE}
    assert card.contract.channels == 2


def test_a_mask_of_the_z_score_is_the_nonzero_voxels(card_of):
    schemes = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]}
    contract = card_of(containers.plans(**schemes)).contract
    assert contract.intensity["mr"] == Intensity(scheme="zscore", region="nonzero")


def test_scans_are_cropped_resampled_and_padded_as_in_nnu_net(card_of):
    assert card_of().contract.conventions == {
        "crop": "nonzero",
        "clip_first": True,
        "interpolation": "nnunet",
        "padding": "zero",
    }


def test_spacing_patch_and_axes_are_in_the_order_of_the_network(card_of):
    turned = {**containers.plans(), "transpose_forward": [2, 0, 1]}
    contract = card_of(turned).contract
    assert (contract.spacing_mm, contract.patch_size) == ((1.5, 1.5, 1.25), (16, 32, 32))
    assert contract.orientation == "LSP"
    assert (
        card_of({**turned, "image_reader_writer": "NibabelIOWithReorient"}).contract.orientation
        == "RSA"
    )


def a_training_scan(path, orientation):
    path.parent.mkdir(parents=True)
    _, geometry = reorient(np.zeros((4, 5, 6)), Geometry((4, 5, 6), np.eye(4)), orientation)
    scan = np.arange(120, dtype=np.int16).reshape(1, *geometry.shape)
    write_volume(path, scan, geometry)
    return path


def test_the_orientation_is_assumed_unless_the_reader_turns_scans(card_of):
    assert card_of().contract.assumed_orientation
    turned = card_of({**containers.plans(), "image_reader_writer": "NibabelIOWithReorient"})
    assert not turned.contract.assumed_orientation


@pytest.mark.parametrize("from_variable", [True, False])
def test_the_orientation_is_read_from_the_raw_dataset_if_it_is_there(
    card_of, tmp_path, monkeypatch, from_variable
):
    raw = tmp_path / ("elsewhere" if from_variable else "nnUNet_raw")
    if from_variable:
        monkeypatch.setenv("nnUNet_raw", str(raw))
    scan = raw / "Dataset042_Blobs" / "imagesTr" / "a_0000.nii.gz"
    a_training_scan(scan, "IPL")
    contract = card_of().contract
    assert (contract.orientation, contract.assumed_orientation) == ("IPL", False)


def test_the_user_may_state_the_orientation_or_pass_a_training_scan(card_of, tmp_path):
    entry = models.NNUNET.card
    stated = ImportOptions(orientation="lpi").apply(entry)
    like = ImportOptions(like=a_training_scan(tmp_path / "scans" / "a.nii.gz", "IPL")).apply(entry)
    assert stated.contract == like.contract
    contract = card_of(entry=stated).contract
    assert (contract.orientation, contract.assumed_orientation) == ("IPL", False)
    with pytest.raises(FseftError, match="'RAL' is not an orientation"):
        ImportOptions(orientation="RAL").apply(entry)
    with pytest.raises(FseftError, match="the orientation of 'stunet_s' is known"):
        ImportOptions(orientation="RAS").apply(models.STUNETS[0].card)


def test_classes_are_in_the_order_of_their_values(card_of):
    card = card_of()
    assert (card.classes, card.activation) == (("kidney_left", "tumour"), "softmax")
    ignore = containers.dataset(labels={"background": 0, "b": 2, "a": 1, "ignore": 3})
    assert card_of(dataset_=ignore).classes == ("a", "b")


def test_overlapping_regions_are_separate_channels(card_of):
    card = card_of(
        dataset_=containers.dataset(labels={"background": 0, "whole": [1, 2], "core": [2]})
    )
    assert (card.classes, card.activation) == (("whole", "core"), "sigmoid")
    assert card.writing_order == ("whole", "core")


def test_a_configuration_has_what_it_inherits(card_of):
    assert card_of(configuration="3d_longer") == card_of()


def test_the_network_is_that_of_the_plans(card_of):
    card = card_of()
    assert card.architecture == "plainconv"
    assert card.hparams["strides"] == containers.STRIDES
    assert card_of(containers.plans(architecture=containers.residual())).architecture == "resenc"


def test_plans_of_the_first_releases_describe_the_same_network(card_of):
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": [1, 2, 1],
        "n_conv_per_stage_decoder": [1, 2],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": containers.STRIDES,
        "conv_kernel_sizes": containers.KERNELS,
    }
    early = containers.plans(**old)
    del early["configurations"]["3d_fullres"]["architecture"]
    hparams = card_of().hparams
    assert card_of(early).hparams == {**hparams, "features_per_stage": [4, 6, 6]}


def another_layer(**changed):
    network = containers.residual()
    network["arch_kwargs"].update(changed)
    return containers.plans(architecture=network)


UNKNOWN = {**containers.NETWORK, "network_class_name": "my_networks.Primus"}


@pytest.mark.parametrize(
    ("plans_", "words"),
    [
        (containers.plans(patch_size=[64, 64]), "the configuration 3d_fullres is not 3D"),
        (containers.plans(previous_stage="3d_lowres"), "3d_fullres needs the result of another"),
        (
            containers.plans(preprocessor_name="Mine"),
            "is preprocessed by Mine. Only DefaultPreprocessor",
        ),
        (
            containers.plans(
                normalization_schemes=["ZScoreNormalization"] * 2, use_mask_for_norm=[True, False]
            ),
            "normalises some channels inside a mask",
        ),
        (
            containers.plans(normalization_schemes=["NoNormalization"]),
            "normalises by NoNormalization",
        ),
        (
            containers.plans(normalization_schemes=["CTNormalization"] * 2),
            "normalises by CTNormalization, CTNorm",
        ),
        (
            containers.plans(architecture=UNKNOWN),
            "the network Primus is not supported. Supported: PlainConvUNet",
        ),
        (
            another_layer(norm_op="torch.nn.BatchNorm3d"),
            "the network has norm_op 'torch.nn.BatchNorm3d'",
        ),
        (another_layer(stem_channels=16), "the network has stem_channels 16"),
        (containers.plans(spacing="fine"), r"is invalid \(ValidationError"),
        (containers.plans(inherits_from="3d_fullres"), r"is invalid \(RecursionError"),
        ({"configurations": {}}, r"is invalid \(KeyError: '3d_fullres'\)"),
    ],
)
def test_unsupported_plans_are_rejected(plans_, words, card_of):
    with pytest.raises(FseftError, match=words):
        card_of(plans_)


def test_a_checkpoint_without_init_args_is_rejected(tmp_path):
    with pytest.raises(FseftError, match="lacks `init_args`"):
        plans.card(
            models.NNUNET.card,
            tmp_path / "fold_0" / "checkpoint_final.pth",
            {"network_weights": {}},
        )


def test_a_checkpoint_without_plans_is_rejected(tmp_path):
    with pytest.raises(FseftError, match=r"comes without plans\.json"):
        plans.card(
            models.NNUNET.card,
            tmp_path / "fold_0" / "checkpoint_final.pth",
            {"init_args": {"fold": 0}},
        )


def test_invalid_json_is_rejected_with_its_file(card_of, tmp_path):
    card_of()
    (tmp_path / "model" / "plans.json").write_text('{"configurations": ')
    with pytest.raises(FseftError, match=r"plans\.json: is not valid JSON"):
        plans.card(models.NNUNET.card, tmp_path / "model" / "fold_0" / "c.pth", {"init_args": {}})
