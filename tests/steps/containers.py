"""Checkpoints as their owners host them: the real container, prefixes and names, small, with random numbers."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import save_file

from fseft.builtin.architectures.suprem_unet import SuPreMUNet
from fseft.builtin.architectures.swinunetr import SwinUNETR

SMALL = {
    "swinunetr": {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4},
    "suprem-unet": {"width": 8},
    "segresnet": {"init_filters": 8, "blocks_down": [1, 1, 1, 1]},
    "segresnet-ds": {"init_filters": 8, "blocks_down": [1, 1, 1, 1, 1], "norm": "batch"},
    "vista3d": {"encoder_embed_dim": 8, "blocks_down": [1, 1, 1, 1, 1]},
}
"""Of the networks, where the architecture takes them."""


def swin(classes, *, width=12, **more):
    """The state dict of MONAI's class."""
    torch.manual_seed(0)
    small = {**SMALL["swinunetr"], "feature_size": width}
    return SwinUNETR().build(in_channels=1, out_channels=classes, **small, **more).state_dict()


def dynamic_head(width, deepest):
    """The text-driven head beside a backbone of that width: 13 tensors."""
    shapes = {
        "precls_conv.0.weight": (width,), "precls_conv.0.bias": (width,),
        "precls_conv.2.weight": (8, width, 1, 1, 1), "precls_conv.2.bias": (8,),
        "GAP.0.weight": (deepest,), "GAP.0.bias": (deepest,),
        "GAP.3.weight": (256, deepest, 1, 1, 1), "GAP.3.bias": (256,),
        "controller.weight": (153, 512, 1, 1, 1), "controller.bias": (153,),
        "text_to_vision.weight": (256, 512), "text_to_vision.bias": (256,),
    }  # fmt: skip
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def universal(backbone, head, prefix):
    """As the universal models are saved: weights, AdamW's state, scheduler and epoch."""
    tensors = {"organ_embedding": torch.randn(32, 512)}
    tensors |= {f"{prefix}{name}": tensor for name, tensor in backbone.items()} | head
    net = OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items())
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(3)
    optimizer.step()
    return {"net": net, "optimizer": optimizer.state_dict(), "scheduler": {"last_epoch": 2100}, "epoch": 2100}


def without_head(tensors, head):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}


def write_clipdriven(path):
    content = universal(without_head(swin(1), "out."), dynamic_head(12, 192), "")
    torch.save(content, path)


def write_suprem_swinunetr(path):
    torch.save(universal(without_head(swin(1), "out."), dynamic_head(12, 192), "backbone."), path)


def write_suprem_unet(path):
    torch.manual_seed(0)
    network = SuPreMUNet().build(in_channels=1, out_channels=1, width=8)
    torch.save(universal(without_head(network.state_dict(), "head."), dynamic_head(8, 64), "backbone."), path)


def write_btcv(path):
    """With NumPy's number for the best score, pickled by the name that NumPy 1 had for it."""
    content = {"epoch": 4999, "best_acc": np.float64(0.8225), "state_dict": OrderedDict(swin(14))}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def write_fseft(path):
    tensors = {name.replace("out.conv.conv.", "classifier."): tensor for name, tensor in swin(29).items()}
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)


def write_selfsup(path):
    inner = {name.removeprefix("swinViT."): t for name, t in swin(1).items() if name.startswith("swinViT.")}
    tensors = {name.replace(".mlp.linear", ".mlp.fc"): tensor for name, tensor in inner.items()}
    heads = {"norm.weight": (192,), "norm.bias": (192,), "rotation_head.weight": (4, 192)}
    heads |= {"contrastive_head.weight": (512, 192), "conv.weight": (192, 192, 1, 1, 1)}
    tensors |= {name: torch.randn(shape) for name, shape in heads.items()}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}, path)


def write_voco_b(path):
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in swin(21, use_v2=True).items()}}, path)


def write_ctfm(path):
    from monai.networks.nets import SegResNetDS

    torch.manual_seed(0)
    network = SegResNetDS(3, 8, 1, 118, blocks_down=(1, 1, 1, 1, 1), norm="batch", dsdepth=4)
    save_file(network.state_dict(), path)


def segresnet(classes):
    from monai.networks.nets import SegResNet

    torch.manual_seed(0)
    return SegResNet(3, 8, 1, classes, blocks_down=(1, 1, 1, 1), blocks_up=(1, 1, 1)).state_dict()


def write_monai_wholebody(path):
    torch.save(segresnet(105), path)


def write_suprem_segresnet(path):
    torch.save({"net": {f"module.{name}": tensor for name, tensor in segresnet(32).items()}, "epoch": 2100}, path)


def write_vista3d(path):
    torch.manual_seed(0)
    save_file(vista3d_network().state_dict(), path)


def vista3d_network():
    """MONAI's whole class, with both branches, at a small width and depth."""
    from monai.networks.nets import SegResNetDS2
    from monai.networks.nets.vista3d import VISTA3D, ClassMappingClassify, PointMappingSAM

    encoder = SegResNetDS2(3, 8, 1, 8, norm="instance", blocks_down=(1, 1, 1, 1, 1))
    return VISTA3D(
        encoder, ClassMappingClassify(512, 8), PointMappingSAM(feature_size=8, n_classes=512, last_supported=132)
    )


WRITERS = {
    "btcv": write_btcv,
    "clipdriven": write_clipdriven,
    "ctfm": write_ctfm,
    "fseft": write_fseft,
    "monai_wholebody": write_monai_wholebody,
    "selfsup": write_selfsup,
    "suprem_segresnet": write_suprem_segresnet,
    "suprem_swinunetr": write_suprem_swinunetr,
    "suprem_unet": write_suprem_unet,
    "vista3d": write_vista3d,
    "voco_b": write_voco_b,
}
