"""Structures that overlap, as nnU-Net's regions: training, prediction and scores of each."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fseft import api
from fseft.adaptation.configure import configure
from fseft.errors import FseftError, IncompatibleError
from fseft.learn.training.losses import load_loss, segmentation_loss
from fseft.model_zoo.adapter_file import read_manifest
from fseft.volume.image import read_labels
from tests.sample_data import adapt, adapt_request, write_dataset

SETTINGS = ("epochs=20", "learning_rate=0.02", "augment=false")
ON_FEATURES = (*SETTINGS, "feature_passes=1", "crops_per_step=1")


@pytest.fixture
def nested(tmp_path):
    """The kidney with its tumour, and the tumour alone."""
    folder = write_dataset(tmp_path / "nested")
    declared = json.loads((folder / "dataset.json").read_text())
    declared["labels"] = {"background": 0, "kidney": [1, 7], "tumour": [7]}
    declared["regions_class_order"] = [1, 7]
    (folder / "dataset.json").write_text(json.dumps(declared))
    return folder


@pytest.mark.parametrize(
    ("method", "settings"), [("lora", SETTINGS), ("linear-probe", (*ON_FEATURES, "solver=lbfgs"))]
)
def test_regions_are_trained_written_in_their_order_and_scored(
    nested, workspace, tmp_path, method, settings
):
    request = adapt_request(nested, "tiny", method, workspace, k=3, settings=settings)
    config = configure(request, workspace)
    volumes = [case.volumes_mm3 for case in _cases(config, workspace)]
    assert all(case["kidney"] > case["tumour"] > 0 for case in volumes)
    result = adapt(request, workspace)
    manifest = read_manifest(result.adapter)
    assert manifest.labels == {"kidney": 1, "tumour": 7}
    assert manifest.writing_order == ("kidney", "tumour")
    assert set(result.run.training_dice) == {"kidney", "tumour"}
    out = tmp_path / "out"
    api.predict(nested / "imagesTr", result.adapter, out, device="cpu", workspace=workspace)
    scores = api.evaluate(
        out, nested / "labelsTr", metrics=["dice"], include_training=True, workers=1
    )
    predicted = read_labels(out / "a.nii.gz").array > 0
    reference = read_labels(nested / "labelsTr" / "a.nii.gz").array > 0
    dice = 2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())
    assert scores.cases["a"]["kidney"].metrics["dice"] == pytest.approx(dice)
    assert list(scores.classes) == ["kidney", "tumour"]
    assert scores.left_out == ()


def _cases(config, workspace):
    from fseft.schemas import Fingerprint
    from fseft.workspace import read_document

    return read_document(workspace.fingerprint(config.plan.dataset), Fingerprint).cases


def test_a_label_file_with_a_value_of_no_region_is_refused(nested, workspace):
    declared = json.loads((nested / "dataset.json").read_text())
    declared["labels"] = {"kidney": [1]}
    declared["regions_class_order"] = [1]
    (nested / "dataset.json").write_text(json.dumps(declared))
    with pytest.raises(FseftError, match="contains label value 7 without a name"):
        configure(adapt_request(nested, "tiny", "lora", workspace, k=2), workspace)


def test_pretrain_refuses_regions_before_it_reads_a_case(nested, workspace):
    (nested / "imagesTr" / "a_0000.nii.gz").write_bytes(b"damaged")
    with pytest.raises(FseftError, match="regions that overlap"):
        api.pretrain([nested], "new", workspace=workspace, device="cpu")


def test_a_method_that_needs_one_structure_per_voxel_is_refused_before_a_case_is_read(
    nested, workspace
):
    (nested / "imagesTr" / "a_0000.nii.gz").write_bytes(b"damaged")
    request = adapt_request(nested, "tiny", "lora", workspace, k=3)
    spec = replace(request.method.spec, supports_regions=False)
    request = replace(request, method=replace(request.method, spec=spec))
    with pytest.raises(IncompatibleError, match="'lora' needs one structure per voxel"):
        configure(request, workspace)


@pytest.mark.parametrize(
    ("labels", "order", "cause"),
    [
        ({"kidney": [1, 7], "tumour": [7]}, None, "has regions .*, but no regions_class_order"),
        ({"kidney": [1, 7], "tumour": [7]}, [1], "has 2 regions, and 1 values"),
        ({"kidney": [1, 7], "tumour": [7]}, [1, 3], "writes the region 'tumour' .7. with the"),
        ({"kidney": 1, "tumour": 7, "ignore": [9]}, None, "ignore: must be a whole number"),
        ({"kidney": [1, 7], "tumour": [7], "ignore": 7}, [1, 7], "have the same value 7"),
        ({"all": [1, 7], "ignore": 7}, [1], "the ignore label 7 is a value of a region"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused_in_a_line(nested, labels, order, cause):
    declared = json.loads((nested / "dataset.json").read_text())
    changes = {"labels": {"background": 0, **labels}, "regions_class_order": order}
    (nested / "dataset.json").write_text(json.dumps({**declared, **changes}))
    with pytest.raises(FseftError, match=f"dataset.json: .*{cause}") as caught:
        api.read_dataset(nested)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["dice", "dice_ce", "dice_wce"])
def test_the_loss_of_regions_is_that_of_their_masks(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 3, 6, 7, 8), generator=generator)
    labels = torch.randint(0, 4, (2, 6, 7, 8), generator=generator)
    members = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]])
    loss = load_loss(name)
    regions = segmentation_loss(logits, labels, loss, members=members)
    everywhere = torch.ones(2, 2)
    one_each = [
        segmentation_loss(
            logits[:, [0, 1 + column]],
            members[labels][..., column],
            loss,
            annotated=everywhere[:, :1],
        )
        for column in range(2)
    ]
    torch.testing.assert_close(regions, torch.stack(one_each).mean())
