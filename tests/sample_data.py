"""Writers of a tiny dataset and of a tiny pre-trained model."""

from __future__ import annotations

import json

import numpy as np
import torch

from fseft.schemas import Contract, Intensity, ModelCard
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels, write_volume
from fseft.volume.preprocessing import LabelMerger
from fseft.workspace import file_digest, write_document

HPARAMS = {"channels": [4, 8], "features": 4}
LABELS = {"Left kidney": 1, "tumour": 7}
SHAPE = (32, 32, 32)
CASES = ("a", "b", "c", "d")


def a_scan(seed=0, shape=SHAPE):
    """A body in air with two blobs of different brightness, and their labels 1 and 7."""
    rng = np.random.default_rng(seed)
    image = np.full((1, *shape), -1000, np.int16)
    image[0, 1:-1, 1:-1, 1:-1] = rng.normal(0, 10, [side - 2 for side in shape])
    label = np.zeros(shape, np.uint8)
    for value, brightness, side in ((1, 200, 8), (7, 400, 6)):
        i, j = rng.integers(3, [shape[0] - 11, shape[1] - 11])
        k = 3 if value == 1 else shape[2] - 11
        box = tuple(slice(start, start + side) for start in (i, j, k))
        image[(0, *box)] += np.int16(brightness)
        label[box] = value
    return image, label


def write_dataset(folder, *, labels=LABELS, cases=CASES, channel="CT", keep=(1, 7), seed=0):
    """An nnU-Net dataset."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    declared = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **labels},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(declared))
    geometry = Geometry(SHAPE, np.diag([1.5, 1.5, 1.5, 1]))
    for number, case in enumerate(cases):
        image, label = a_scan(seed + number)
        write_volume(folder / "imagesTr" / f"{case}_0000.nii.gz", image, geometry)
        write_labels(folder / "labelsTr" / f"{case}.nii.gz", label * np.isin(label, keep), geometry)
    return folder


def write_model(
    store,
    name="tiny",
    *,
    architecture="resunet",
    hparams=HPARAMS,
    seed=0,
    classes=("kidney_left", "liver"),
    **changed,
):
    """A model of the workspace: small random weights, with two classes."""
    from safetensors.torch import save_file

    from fseft.learn.networks import backbone

    network = backbone.build_network(
        backbone.get_architecture(architecture),
        in_channels=1,
        out_channels=len(classes),
        hparams=hparams,
        seed=seed,
    )
    path = store.model(name) / "weights.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), path)
    contract = Contract(
        spacing_mm=(1.5, 1.5, 1.5),
        intensity={"ct": Intensity(scheme="window", low=-200, high=500)},
        patch_size=(32, 32, 32),
    )
    card = ModelCard(
        name=name,
        architecture=architecture,
        hparams=hparams,
        classes=classes,
        contract=contract,
        licence="CC-BY-4.0",
        sha256=file_digest(path),
    )
    write_document(store.model(name) / "model.json", card.model_copy(update=changed))


def equal_tensors(a, b):
    """Whether two state dicts are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def restored_labels(scores, transform, values):
    """The strongest class of scores (C, i, j, k) on the grid of the file, as prediction writes it."""
    merger = LabelMerger.empty(transform.native, max(values), np.uint8)
    merger.adder(transform, values, confidence=1)(scores)
    return merger.labels


def adapt_request(
    folder, model, method, workspace, *, k, settings=(), decoder=None, bottleneck=None, **changed
):
    """The request of an adaptation, of names and of settings as on the command line."""
    from fseft.adaptation.request import AdaptRequest
    from fseft.cli.parsing import parse_settings
    from fseft.experiment.settings import configure_method
    from fseft.model_zoo.catalogue import find_model
    from fseft.planning.dataset_reading import read_dataset

    parsed = parse_settings("--set", settings)
    return AdaptRequest(
        method=configure_method(method, parsed, decoder=decoder, bottleneck=bottleneck),
        model=find_model(model, workspace),
        k=k,
        **{"device": "cpu", "dataset": read_dataset(folder), **changed},
    )


def adapt(request, workspace, callbacks=None):
    """Configure and run an adaptation."""
    from fseft.adaptation.configure import configure
    from fseft.adaptation.run import adapt

    return adapt(configure(request, workspace, callbacks), workspace, callbacks)


def load_adapter(path, workspace):
    """The network of an adapter, and its manifest."""
    from fseft.inference.adapter_groups import open_adapters
    from fseft.model_zoo.adapter_file import load_adapter

    (adapter,) = open_adapters((path,), workspace)
    return load_adapter(adapter), adapter.manifest
