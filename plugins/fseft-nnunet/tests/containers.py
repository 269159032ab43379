"""Checkpoints as nnU-Net and its relatives write them, with small random networks."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
KERNELS = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
NETWORK = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 3,
        "features_per_stage": [4, 6, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": KERNELS,
        "strides": STRIDES,
        "n_conv_per_stage": [1, 2, 1],
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}
CLASSES = {"PlainConvUNet": PlainConvUNet, "ResidualEncoderUNet": ResidualEncoderUNet}
LAYERS = {
    "conv_op": nn.Conv3d,
    "norm_op": nn.InstanceNorm3d,
    "dropout_op": None,
    "nonlin": nn.LeakyReLU,
}


def plans(**changed):
    """`plans.json` with the given entries in its only configuration."""
    return {
        "dataset_name": "Dataset042_Blobs",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 101.5, "std": 44.25, "median": 99.0, "min": -1000.0, "max": 900.0,
                  "percentile_00_5": -55.0, "percentile_99_5": 345.0},
        },
        "configurations": {
            "3d_fullres": {
                "preprocessor_name": "DefaultPreprocessor",
                "patch_size": [16, 32, 32],
                "spacing": [1.5, 1.5, 1.25],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "architecture": deepcopy(NETWORK),
                **changed,
            },
            "3d_longer": {"inherits_from": "3d_fullres", "batch_size": 4},
        },
    }  # fmt: skip


def residual():
    """The network of the plans, with residual blocks."""
    network = deepcopy(NETWORK)
    network["network_class_name"] = network["network_class_name"].replace(
        "PlainConvUNet", "ResidualEncoderUNet"
    )
    network["arch_kwargs"]["n_blocks_per_stage"] = network["arch_kwargs"].pop("n_conv_per_stage")
    return network


def public(kind, depths, depths_up):
    """A network of six stages, as wide as public ones."""
    blocks = "n_blocks_per_stage" if kind == "ResidualEncoderUNet" else "n_conv_per_stage"
    arguments = {
        name: value for name, value in NETWORK["arch_kwargs"].items() if name != "n_conv_per_stage"
    }
    wide = {"n_stages": 6, "features_per_stage": [32, 64, 128, 256, 320, 320], "kernel_sizes": 3}
    wide |= {"strides": [1, 2, 2, 2, 2, 2], blocks: depths, "n_conv_per_stage_decoder": depths_up}
    return {"network_class_name": kind, "arch_kwargs": {**arguments, **wide}}


PUBLIC_PLAIN = public("PlainConvUNet", 2, 2)
PUBLIC_RESENC = public("ResidualEncoderUNet", [1, 3, 4, 6, 6, 6], 1)


def dataset(**changed):
    """`dataset.json`; the labels are not in the order of their values."""
    labels = {"background": 0, "tumour": 2, "kidney_left": 1}
    return {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 4,
        "file_ending": ".nii.gz",
        **changed,
    }


def a_network(network, classes=3, channels=1):
    """nnU-Net's own class, as in training: with deep supervision."""
    torch.manual_seed(0)
    kind = network["network_class_name"].rpartition(".")[2]
    built = CLASSES[kind](
        input_channels=channels,
        num_classes=classes,
        deep_supervision=True,
        **{**network["arch_kwargs"], **LAYERS},
    )
    built.apply(built.initialize)
    for parameter in built.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return built


def write_v2(
    folder,
    *,
    plans_=None,
    dataset_=None,
    configuration="3d_fullres",
    separate_plans=True,
    classes=3,
    **more,
):
    """A model folder of nnU-Net v2; the path of its checkpoint."""
    plans_, dataset_ = plans_ or plans(), dataset_ or dataset()
    file = folder / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0" / "checkpoint_final.pth"
    file.parent.mkdir(parents=True)
    if separate_plans:
        (file.parents[1] / "plans.json").write_text(json.dumps(plans_))
        (file.parents[1] / "dataset.json").write_text(json.dumps(dataset_))
    network = a_network(
        plans_["configurations"]["3d_fullres"].get("architecture", NETWORK), classes
    )
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "momentum": 0.99}]},
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [np.float64(0.5)],
            "train_losses": [np.float32(-0.5)],
            "dice_per_class_or_region": [[np.float64(0.5), np.float64(0.25)]],
            "epoch_start_timestamps": [1.7e9],
        },
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {
            "plans": plans_, "configuration": configuration, "fold": 0, "dataset_json": dataset_,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None,
        **more,
    }  # fmt: skip
    torch.save(content, file)
    return file


def write_nnssl(file):
    """An encoder of nnssl with the decoder of its pre-training."""
    network = ResidualEncoderUNet(
        input_channels=1,
        num_classes=1,
        n_stages=6,
        kernel_sizes=3,
        strides=[1, 2, 2, 2, 2, 2],
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        **SMALL_RESENC,
        **LAYERS,
    )
    plan = {
        "architecture_plans": {"arch_class_name": "ResEncL", "arch_kwargs": None},
        "pretrain_plan": {
            "configurations": {"onemmiso": {"spacing": [1, 1, 1], "patch_size": [160, 160, 160]}}
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [160, 160, 160],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ("encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"),
    }
    content = {
        "network_weights": network.state_dict(),
        "logging": {"train_losses": [0.5]},
        "_best_ema": 0.5,
    }
    torch.save({**content, "trainer_name": "BaseMAETrainer", "nnssl_adaptation_plan": plan}, file)


SMALL_RESENC = {"features_per_stage": [4, 4, 6, 6, 8, 8], "n_blocks_per_stage": [1, 2, 1, 1, 1, 1]}


def write_stunet(file, network, classes=105):
    """A STU-Net in nnU-Net v1's container, with arrays pickled under NumPy 1's names."""
    coarse = {
        f"seg_outputs.{n}.{part}": torch.zeros(shape)
        for n, level in enumerate(network.conv_blocks_localization[:-1])
        for part, shape in (
            ("weight", (classes, level[0].conv2.out_channels, 1, 1, 1)),
            ("bias", (classes,)),
        )
    }
    content = {
        "epoch": 4000,
        "state_dict": {**network.state_dict(), **coarse},
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "lr_scheduler_state_dict": None,
        "plot_stuff": ([np.float32(0.5)], [], np.array([0.25, 0.5]), np.array([1, 2])),
        "best_stuff": (np.float64(-0.5), None, np.float64(0.75)),
        "amp_grad_scaler": {"scale": 65536.0},
    }
    torch.save(content, file, _use_new_zipfile_serialization=False)
    file.write_bytes(
        file.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )
