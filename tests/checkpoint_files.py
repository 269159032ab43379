"""Checkpoints as their owners host them: the real container, prefixes and names, with random numbers.

Each is made for the settings of a network (`hparams`), so that it is small in most tests and as wide as the public file
where that is what is tested.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import save_file

from fseft.builtin.architectures.anatomix import Anatomix, AnatomixConfig
from fseft.builtin.architectures.suprem_unet import SuPreMUNet, SuPreMUNetConfig
from fseft.builtin.architectures.swinunetr import SwinUNETR, SwinUNETRConfig

SMALL = {
    "swinunetr": {
        "feature_size": 12,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 2, 2),
        "window_size": 4,
    },
    "suprem-unet": {"width": 8},
    "segresnet": {"init_filters": 8, "blocks_down": [1, 1, 1, 1], "blocks_up": [1, 1, 1]},
    "segresnet-ds": {"init_filters": 8, "blocks_down": [1, 1, 1, 1, 1], "norm": "batch"},
    "vista3d": {"encoder_embed_dim": 8, "blocks_down": [1, 1, 1, 1, 1]},
    "anatomix": {"width": 4, "features": 4},
}
"""By the architecture's name; what the entries of public models have with a small width and
depth.
"""

SWIN = SMALL["swinunetr"]


def write(name, path, hparams=None, **more):
    """A public file, small by default."""
    make, kind = PUBLIC[name]
    content = make({**(SMALL[kind] if hparams is None else hparams)}, **more)
    if name in ("ctfm", "vista3d"):
        save_file(content, path)
    elif name == "btcv":
        write_old(content, path)
    else:
        torch.save(content, path)
    return path


def write_old(content, path):
    """As years ago: no zip, and NumPy's numbers pickled by the name that NumPy 1 had for them."""
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(
        path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )


def wrapped(tensors):
    """As DistributedDataParallel names them."""
    return OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items())


def without_head(tensors, head):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}


# --- SwinUNETR ------------------------------------------------------------------------------------


def swin(classes, hparams=SWIN):
    """The state dict of MONAI's class."""
    torch.manual_seed(0)
    config = SwinUNETRConfig(**{**hparams, "text_classes": 0})
    return SwinUNETR().build(in_channels=1, out_channels=classes, config=config).state_dict()


def btcv(hparams):
    """With NumPy's number for the best score."""
    return {
        "epoch": 4999,
        "best_acc": np.float64(0.8225),
        "state_dict": OrderedDict(swin(14, hparams)),
    }


def fseft(hparams):
    tensors = {
        name.replace("out.conv.conv.", "classifier."): tensor
        for name, tensor in swin(29, hparams).items()
    }
    return wrapped(tensors)


def encoder(hparams):
    """The tensors of the Swin encoder, by the names that they have in a separate network."""
    inner = {
        name.removeprefix("swinViT."): t
        for name, t in swin(1, hparams).items()
        if name.startswith("swinViT.")
    }
    deepest = 16 * hparams["feature_size"]
    return inner | {name: torch.randn(deepest) for name in ("norm.weight", "norm.bias")}, deepest


def selfsup(hparams):
    tensors, deepest = encoder(hparams)
    heads = {"rotation_head.weight": (4, deepest), "contrastive_head.weight": (512, deepest)}
    heads |= {"conv.weight": (deepest, deepest, 1, 1, 1)}
    tensors |= {name: torch.randn(shape) for name, shape in heads.items()}
    return {
        "state_dict": wrapped(
            {name.replace(".mlp.linear", ".mlp.fc"): t for name, t in tensors.items()}
        )
    }


def dae(hparams):
    """Each level in one list more, a token for what was masked, and the decoder of the
    reconstruction.
    """
    tensors, _ = encoder(hparams)
    levels = {f"layers{n}.0.": f"layers{n}.0.0." for n in (1, 2, 3, 4)}
    listed = {
        levels.get(name[:10], name[:10]) + name[10:]: tensor for name, tensor in tensors.items()
    }
    listed["mask_token"] = torch.randn(1, 1, hparams["feature_size"])
    decoder = {
        "out.conv.conv.weight": torch.randn(1, 24, 1, 1, 1),
        "decoder.upsample1.0.weight": torch.randn(3),
    }
    return {
        "model": {f"encoder.{name}": t for name, t in listed.items()} | decoder,
        "optimizer": {},
        "epoch": 300,
    }


def voco(hparams):
    return {"state_dict": wrapped(swin(21, {**hparams, "use_v2": True}))}


# --- universal models -----------------------------------------------------------------------------


def dynamic_head(width, deepest):
    """The text-driven head for a backbone of that width: 12 tensors, and the texts."""
    shapes = {
        "precls_conv.0.weight": (width,), "precls_conv.0.bias": (width,),
        "precls_conv.2.weight": (8, width, 1, 1, 1), "precls_conv.2.bias": (8,),
        "GAP.0.weight": (deepest,), "GAP.0.bias": (deepest,),
        "GAP.3.weight": (256, deepest, 1, 1, 1), "GAP.3.bias": (256,),
        "controller.weight": (153, 512, 1, 1, 1), "controller.bias": (153,),
        "text_to_vision.weight": (256, 512), "text_to_vision.bias": (256,),
    }  # fmt: skip
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def universal(backbone, head, prefix, classes=32):
    """As the universal models are saved: weights, AdamW's state, scheduler and epoch."""
    tensors = {"organ_embedding": torch.randn(classes, 512)}
    tensors |= {f"{prefix}{name}": tensor for name, tensor in backbone.items()} | head
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    return {
        "net": wrapped(tensors),
        "optimizer": optimizer,
        "scheduler": {"last_epoch": 2100},
        "epoch": 2100,
    }


def clipdriven(hparams, prefix="", classes=32):
    width = hparams["feature_size"]
    return universal(
        without_head(swin(1, hparams), "out."), dynamic_head(width, 16 * width), prefix, classes
    )


def suprem_swinunetr(hparams, classes=32):
    return clipdriven(hparams, "backbone.", classes)


def suprem_unet(hparams, classes=32):
    torch.manual_seed(0)
    width = hparams["width"]
    config = SuPreMUNetConfig(width=width)
    backbone = SuPreMUNet().build(in_channels=1, out_channels=1, config=config).state_dict()
    return universal(
        without_head(backbone, "head."), dynamic_head(width, 8 * width), "backbone.", classes
    )


# --- SegResNet and its relatives ------------------------------------------------------------------


def segresnet(classes, hparams):
    from monai.networks.nets import SegResNet

    torch.manual_seed(0)
    depths = {key: hparams[key] for key in ("blocks_down", "blocks_up")}
    return SegResNet(3, hparams["init_filters"], 1, classes, **depths).state_dict()


def monai_wholebody(hparams):
    return segresnet(105, hparams)


def suprem_segresnet(hparams):
    return {"net": wrapped(segresnet(32, hparams)), "epoch": 2100}


def ctfm(hparams):
    from monai.networks.nets import SegResNetDS

    torch.manual_seed(0)
    width, blocks = hparams["init_filters"], hparams["blocks_down"]
    return SegResNetDS(3, width, 1, 118, blocks_down=blocks, norm="batch", dsdepth=4).state_dict()


def vista3d(hparams):
    torch.manual_seed(0)
    return vista3d_network(hparams).state_dict()


def vista3d_network(hparams=SMALL["vista3d"]):
    """MONAI's whole class, with both branches."""
    from monai.networks.nets import SegResNetDS2
    from monai.networks.nets.vista3d import VISTA3D, ClassMappingClassify, PointMappingSAM

    width = hparams["encoder_embed_dim"]
    encoder = SegResNetDS2(3, width, 1, width, norm="instance", blocks_down=hparams["blocks_down"])
    return VISTA3D(
        encoder,
        ClassMappingClassify(512, width),
        PointMappingSAM(feature_size=width, n_classes=512, last_supported=132),
    )


# --- anatomix -------------------------------------------------------------------------------------


def anatomix(hparams, levels=4, variant="batch"):
    """As torch.compile names the layers of the owner's class, which are in one list."""
    torch.manual_seed(0)
    config = AnatomixConfig(**{**hparams, "levels": levels, "variant": variant})
    network = Anatomix().build(in_channels=1, out_channels=1, config=config)
    return OrderedDict(
        (f"_orig_mod.{name.replace('layers.', 'model.', 1)}", tensor)
        for name, tensor in without_head(network.state_dict(), "head.").items()
    )


def anatomix_dev(hparams):
    return anatomix(hparams, levels=5, variant="instance")


PUBLIC = {
    "anatomix": (anatomix, "anatomix"),
    "anatomix-dev": (anatomix_dev, "anatomix"),
    "btcv": (btcv, "swinunetr"),
    "clipdriven": (clipdriven, "swinunetr"),
    "ctfm": (ctfm, "segresnet-ds"),
    "dae": (dae, "swinunetr"),
    "fseft": (fseft, "swinunetr"),
    "monai_wholebody": (monai_wholebody, "segresnet"),
    "selfsup": (selfsup, "swinunetr"),
    "suprem_segresnet": (suprem_segresnet, "segresnet"),
    "suprem_swinunetr": (suprem_swinunetr, "swinunetr"),
    "suprem_unet": (suprem_unet, "suprem-unet"),
    "vista3d": (vista3d, "vista3d"),
    "voco_b": (voco, "swinunetr"),
    "voco_h": (voco, "swinunetr"),
    "voco_l": (voco, "swinunetr"),
}
"""The entry's name: what makes its content, and the architecture."""
