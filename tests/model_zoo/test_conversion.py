"""Public checkpoints are loaded whole, or refused with a word on whose they are."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fseft.api import import_model, verify_model
from fseft.builtin.architectures.swinunetr import SwinUNETR, SwinUNETRConfig
from fseft.errors import FseftError
from fseft.inference.adapter_groups import open_adapters
from fseft.inference.request import PredictRequest
from fseft.inference.run import predict
from fseft.learn.networks import backbone
from fseft.model_zoo import conversion
from fseft.model_zoo.adapter_file import read_manifest
from fseft.model_zoo.catalogue import find_model, model_names
from fseft.plugin import FoundationModelSpec
from fseft.registration import Registration
from fseft.registry import registry
from fseft.schemas import ModelCard
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_volume
from fseft.workspace import read_document, write_document
from tests import checkpoint_files
from tests.peak_memory import PEAK_BYTES
from tests.sample_data import adapt, load_adapter

PUBLIC = sorted(
    checkpoint_files.PUBLIC.keys() - {"voco_h", "voco_l"}
)  # which are voco_b in other widths


@pytest.fixture
def shelf(tmp_path, monkeypatch, workspace):
    """A cache of one's own, entries of small width, and a function that writes a model's public
    file.
    """
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "models"))
    for spec in registry().specs("model", FoundationModelSpec):
        if spec.checkpoint is not None:
            narrow(monkeypatch, spec)

    def write(name, file=None, **more):
        return checkpoint_files.write(name, tmp_path / (file or f"{name}.file"), **more)

    return write


def narrow(monkeypatch, spec, **changed):
    """Let an entry be of small width and fit the tests' scans, in all else as it is."""
    card = spec.card
    hparams = {**card.hparams, **checkpoint_files.SMALL[card.architecture]}
    contract = card.contract.model_copy(update={"patch_size": None})
    small = card.model_copy(update={"hparams": hparams, "contract": contract, **changed})
    offer = registry().resolve("model", spec.name)
    key = ("model", spec.name)
    monkeypatch.setitem(
        registry()._registrations, key, [Registration(replace(spec, card=small), offer.source)]
    )


def spec_of(name):
    return registry().resolve("model", name).spec


# --- what is loaded -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_checkpoint_is_loaded_whole(name, shelf, workspace):
    report = import_model(name, shelf(name), workspace).report
    architecture = backbone.get_architecture(spec_of(name).card.architecture)
    network = conversion._build_network(spec_of(name).card, seed=0)[1]
    wanted = {key for key, value in network.state_dict().items() if value.is_floating_point()}
    kept = load_file(find_model(name, workspace).weights.path)
    covered = {
        "encoder": {key for key in wanted if key.startswith("swinViT.")},
        "network": wanted,
        "body": {key for key in wanted if not key.startswith(architecture.head_name(network))},
    }
    assert wanted & kept.keys() == covered[spec_of(name).card.scope]
    assert report.unused == {}
    assert report.loaded == len(kept)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_loaded_numbers_are_those_of_the_file(name, shelf, workspace):
    import_model(name, shelf(name), workspace)
    network = conversion._build_network(find_model(name, workspace).card, seed=1)[1]
    backbone.load_weights(
        network, load_file(find_model(name, workspace).weights.path), source="", partial=True
    )
    verify_model(name, workspace)
    if name == "vista3d":
        original = checkpoint_files.vista3d_network()
        original.load_state_dict(load_file(shelf(name)))
        x = torch.rand(1, 1, 32, 32, 32)
        classes = [[index] for index in (1, 5, 132)]
        rows = [
            list(spec_of(name).card.classes).index(n)
            for n in ("liver", "right kidney", spec_of(name).card.classes[-1])
        ]
        with torch.no_grad():
            expected = original.eval()(x, class_vector=torch.tensor(classes))
            torch.testing.assert_close(
                network.eval()(x)[0, rows], expected[:, 0], rtol=1e-4, atol=1e-4
            )


def reference_logits(parts, features, deepest, index):
    """The text head by the paper's words: the image and the text write the weights of three 1x1x1
    convolutions.
    """
    pooled = torch.relu(
        torch.nn.functional.group_norm(deepest, 16, parts["GAP.0.weight"], parts["GAP.0.bias"])
    )
    image = parts["GAP.3.weight"].flatten(1) @ pooled.mean((2, 3, 4))[0] + parts["GAP.3.bias"]
    text = torch.relu(
        parts["text_to_vision.weight"] @ parts["organ_embedding"][index]
        + parts["text_to_vision.bias"]
    )
    written = (
        parts["controller.weight"].flatten(1) @ torch.cat([image, text]) + parts["controller.bias"]
    )
    groups = np.gcd(16, features.shape[1])
    normed = torch.nn.functional.group_norm(
        features, groups, parts["precls_conv.0.weight"], parts["precls_conv.0.bias"]
    )
    x = torch.einsum(
        "oi,iabc->oabc", parts["precls_conv.2.weight"].flatten(1), torch.relu(normed)[0]
    )
    x = x + parts["precls_conv.2.bias"][:, None, None, None]
    matrices = written[:64].view(8, 8), written[64:128].view(8, 8), written[128:136].view(1, 8)
    biases = written[136:144], written[144:152], written[152:]
    for n, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
        x = torch.einsum("oi,iabc->oabc", matrix, x) + bias[:, None, None, None]
        x = torch.relu(x) if n < 2 else x
    return x[0]


@torch.no_grad()
@pytest.mark.parametrize("name", ["clipdriven", "suprem_unet"])
def test_a_head_driven_by_texts_serves_zero_shot(name, shelf, workspace, request_for):
    file = shelf(name)
    import_model(name, file, workspace)
    request = request_for("zero-shot", model=name, k=1, mapping={"tumour": "Celiac Truck"})
    result = adapt(request, workspace)
    assert result.run.head_rows == {"Left kidney": "Left Kidney", "tumour": "Celiac Truck"}
    network = load_adapter(result.adapter, workspace)[0].eval()
    seen = {}
    deepest = network.get_submodule({"clipdriven": "encoder10", "suprem_unet": "down_tr512"}[name])
    deepest.register_forward_hook(lambda _m, _i, output: seen.update(deepest=output))
    architecture = backbone.get_architecture(spec_of(name).card.architecture)
    x = torch.rand(1, 1, *architecture.minimum_patch)
    features = architecture.features(network, x)
    logits = network(x)[0]
    stored = torch.load(file, weights_only=True)["net"]
    parts = {key.removeprefix("module."): value for key, value in stored.items()}
    assert not logits[0].any()
    for row, index in ((1, 2), (2, 24)):
        expected = reference_logits(parts, features, seen["deepest"], index)
        torch.testing.assert_close(
            logits[row], expected, rtol=0, atol=float(1e-4 * expected.abs().max())
        )


def test_module_before_module_is_stripped_and_half_precision_is_fine(shelf, workspace, tmp_path):
    content = torch.load(shelf("fseft"), weights_only=True)
    torch.save(
        {
            f"module.{key}": value.half() if value.is_floating_point() else value
            for key, value in content.items()
        },
        tmp_path / "odd",
    )
    assert import_model("fseft", tmp_path / "odd", workspace).report.missing == {}


def test_a_file_is_known_by_its_content_not_by_its_name(shelf, workspace):
    file = shelf("selfsup", "btcv.pt")
    assert import_model("selfsup", file, workspace).report.loaded > 0
    with pytest.raises(
        FseftError, match=r"btcv\.pt: is not a checkpoint of 'btcv'.*It looks like that of selfsup"
    ):
        import_model("btcv", file, workspace)


def test_an_imported_model_is_there_for_every_workspace(shelf, workspace, tmp_path):
    assert not find_model("btcv", workspace).has_weights
    with pytest.raises(
        FseftError, match=r"weights of the model 'btcv' are missing.*fseft models import btcv FILE"
    ):
        _ = find_model("btcv", workspace).weights
    imported = import_model("btcv", shelf("btcv"), workspace)
    assert (
        find_model("btcv", type(workspace)(tmp_path / "elsewhere")).weights.sha256
        == imported.card.sha256
    )
    assert (
        find_model("btcv", workspace).card.provenance["load_report"]["loaded"]
        == imported.report.loaded
    )


def test_packages_may_have_models_of_one_name(shelf, workspace, monkeypatch):
    ours = registry().resolve("model", "btcv")
    elsewhere = replace(ours.source, distribution="fseft-other")
    theirs = Registration(
        replace(ours.spec, card=ours.spec.card.model_copy(update={"licence": "MIT"})), elsewhere
    )
    monkeypatch.setitem(registry()._registrations, ("model", "btcv"), [ours, theirs])
    assert {"fseft:btcv", "fseft-other:btcv"} < set(model_names(workspace))
    file = shelf("btcv")
    for use in (
        lambda name: import_model(name, file, workspace),
        lambda name: find_model(name, workspace).card,
    ):
        with pytest.raises(
            FseftError, match=r"claimed by 2 packages\. Use fseft:btcv or fseft-other:btcv"
        ):
            use("btcv")
    with pytest.raises(
        FseftError, match=r"Run `fseft models pull fseft-other:btcv`, or download swin_unetr"
    ):
        _ = find_model("fseft-other:btcv", workspace).weights
    import_model("fseft-other:btcv", file, workspace)
    assert not find_model("fseft:btcv", workspace).has_weights
    assert verify_model("fseft-other:btcv", workspace).card.licence == "MIT"
    with pytest.raises(FseftError, match=r"It looks like that of fseft-other:btcv or fseft:btcv\."):
        import_model("clipdriven", file, workspace)


def a_wider_card(card, file, content):
    """A card that only the file contains."""
    classes = tuple(f"{content['names']} {n}" for n in range(1, 14))
    return card.model_copy(update={"classes": classes, "summary": file.name})


@pytest.fixture
def entry_with_card(shelf, monkeypatch):
    """The file of `btcv`, with names of classes in it, which a function of the entry reads."""
    offer = registry().resolve("model", "btcv")
    checkpoint = replace(offer.spec.checkpoint, card=f"{__name__}:a_wider_card")
    registration = Registration(replace(offer.spec, checkpoint=checkpoint), offer.source)
    monkeypatch.setitem(registry()._registrations, ("model", "btcv"), [registration])
    file = shelf("btcv")
    torch.save({"state_dict": checkpoint_files.swin(14), "names": "bone"}, file)
    return file


def test_the_card_in_the_file_takes_precedence_over_the_entry(entry_with_card, workspace):
    imported = import_model("btcv", entry_with_card, workspace)
    for name in ("btcv", "fseft:btcv"):
        card = find_model(name, workspace).card
        assert card.model_dump(mode="json") == {
            **imported.card.model_dump(mode="json"),
            "name": name,
        }
        assert (card.classes[-1], card.summary) == ("bone 13", "btcv.file")
    verify_model("btcv", workspace)


def test_a_model_may_be_kept_under_a_name_of_ones_own(entry_with_card, workspace):
    imported = import_model("btcv", entry_with_card, workspace, name="mine")
    assert find_model("mine", workspace).card.model_dump(mode="json") == imported.card.model_dump(
        mode="json"
    )
    assert imported.card.name == "mine"
    assert not find_model("btcv", workspace).has_weights
    verify_model("mine", workspace)
    with pytest.raises(FseftError, match="a model 'mine' exists already"):
        import_model("btcv", entry_with_card, workspace, name="mine")
    with pytest.raises(FseftError, match=r"'vista3d' belongs to a model of a plugin"):
        import_model("btcv", entry_with_card, workspace, name="vista3d")
    with pytest.raises(FseftError, match="'none' is not a valid name of a model"):
        import_model("btcv", entry_with_card, workspace, name="none")


# --- what is refused ------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[:-20000])


def optimizer_only(path):
    torch.save({"optimizer": torch.load(path, weights_only=True)["optimizer"], "epoch": 3}, path)


def code(path):
    torch.save(
        {"net": torch.load(path, weights_only=True)["net"], "args": argparse.Namespace(lr=1)}, path
    )


def another_width(path):
    checkpoint_files.write("clipdriven", path, {**checkpoint_files.SWIN, "feature_size": 24})


def a_tensor_less(path):
    content = torch.load(path, weights_only=True)
    del content["net"]["module.encoder2.layer.conv1.conv.weight"]
    torch.save(content, path)


def nan(path):
    content = torch.load(path, weights_only=True)
    content["net"]["module.encoder2.layer.conv1.conv.weight"][0] = torch.nan
    torch.save(content, path)


def whole_network(path):
    """As `torch.save(network, file)` leaves it."""
    config = SwinUNETRConfig(patch_merging="fixed", **checkpoint_files.SWIN)
    network = SwinUNETR().build(in_channels=1, out_channels=14, config=config)
    torch.save({"model": network}, path)


def cut_old(path):
    checkpoint_files.write("btcv", path)
    cut(path)


def another_network(path):
    path.unlink()
    save_file({"conv.weight": torch.zeros(3)}, path)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut, "cannot be read as a file of weights.*incomplete"),
        (optimizer_only, "contains no weights"),
        (code, r"would execute code from argparse\.Namespace.*allow-pickle"),
        (
            another_width,
            r"of another shape: swinViT\.patch_embed\.proj\.weight is 24×1×2×2×2, the network's is 12×1×2×2×2",
        ),
        (a_tensor_less, r"contains \d+ of the \d+ required tensors \(missing: encoder2 1\)"),
        (another_network, "is not a checkpoint of 'clipdriven'"),
        (a_folder, "is a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (
            nan,
            r"1 tensor with NaN or infinity in it \(first encoder2\.layer\.conv1\.conv\.weight\)",
        ),
        (whole_network, r"would execute code from \S+, \S+, \S+ and \d+ more\."),
        (cut_old, r"incomplete\)\. Download it again"),
        (
            lambda path: path.write_text("not found"),
            r"damaged, or has another format\)\. Download it again",
        ),
        (
            lambda path: path.write_text(" <!DOCTYPE html>"),
            r"it is a web page\)\. Download the file itself",
        ),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
            "is a pointer of Git LFS.*git lfs pull",
        ),
        (lambda path: path.unlink(), "the file does not exist"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_and_nothing_is_kept(spoil, words, shelf, workspace):
    file = shelf("clipdriven")
    spoil(file)
    with pytest.raises(FseftError, match=words) as caught:
        import_model("clipdriven", file, workspace)
    assert str(file) in str(caught.value)
    assert not workspace.imported("fseft", "clipdriven").exists()


def test_code_in_a_checkpoint_runs_only_on_request(shelf, workspace):
    file = shelf("clipdriven")
    code(file)
    assert import_model("clipdriven", file, workspace, allow_pickle=True).report.loaded > 0


def test_of_a_network_that_was_saved_whole_the_weights_are_taken(workspace, shelf):
    file = shelf("btcv")
    whole_network(file)
    assert import_model("btcv", file, workspace, allow_pickle=True).report.missing == {}


def test_weights_that_come_with_a_package_are_not_imported(shelf, workspace):
    with pytest.raises(
        FseftError, match="package of the model 'phantom-tiny' includes its weights"
    ):
        import_model("phantom-tiny", shelf("btcv"), workspace)


def test_a_function_that_changed_is_noticed(shelf, workspace, monkeypatch):
    import_model("btcv", shelf("btcv"), workspace)
    verify_model("btcv", workspace)
    card = read_document(workspace.imported("fseft", "btcv") / "model.json", ModelCard)
    fixed = card.model_copy(update={"hparams": {**card.hparams, "patch_merging": "fixed"}})
    write_document(workspace.imported("fseft", "btcv") / "model.json", fixed)
    with pytest.raises(FseftError, match="differs from that at import"):
        verify_model("btcv", workspace)


# --- what can be done with it ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ctfm", "selfsup", "suprem_unet", "vista3d"])
def test_an_imported_model_is_adapted_and_predicts(
    name, shelf, workspace, request_for, blobs, tmp_path
):
    import_model(name, shelf(name), workspace)
    method = "lora" if name != "suprem_unet" else "linear-probe"
    result = adapt(
        request_for(method, model=name, k=1, settings=("epochs=1",), output=tmp_path / "run"),
        workspace,
    )
    assert result.run.backbone["load_report"]["loaded"] > 0
    done = predict(
        PredictRequest(
            (blobs / "imagesTr" / "a_0000.nii.gz",),
            tmp_path / "out",
            open_adapters((result.adapter,), workspace),
        ),
    )
    assert done.segmented == ["a"]


def test_rows_are_copied_for_classes_of_the_same_meaning_or_as_mapped(
    shelf, workspace, request_for
):
    import_model("btcv", shelf("btcv"), workspace)
    mapped = request_for("zero-shot", model="btcv", k=1, mapping={"tumour": "liver"})
    assert adapt(mapped, workspace).run.head_rows == {
        "Left kidney": "left kidney",
        "tumour": "liver",
    }


def test_black_box_methods_are_refused_on_an_encoder_alone(shelf, workspace, request_for):
    with pytest.raises(
        FseftError, match=r"'selfsup' are an encoder only.*features would be random"
    ):
        adapt(request_for("linear-probe", model="selfsup"), workspace)


def test_missing_weights_are_refused_before_anything_is_measured(shelf, workspace, request_for):
    before = sorted(workspace.root.rglob("*"))
    with pytest.raises(
        FseftError, match=r"weights of the model 'selfsup' are missing.*models pull selfsup"
    ):
        adapt(request_for("lora", model="selfsup"), workspace)
    assert sorted(workspace.root.rglob("*")) == before


def test_what_no_weights_were_loaded_for_is_trained(shelf, workspace, request_for):
    import_model("selfsup", shelf("selfsup"), workspace)
    tensors = load_file(
        adapt(request_for("lora", model="selfsup", k=1, settings=("epochs=1",)), workspace).adapter
    )
    assert any(name.startswith("encoder10.") for name in tensors)
    assert any(name.startswith("decoder1.") for name in tensors)
    assert not any(
        name.startswith("swinViT.") and "parametrizations" not in name for name in tensors
    )


@pytest.mark.parametrize("what", ["another entry", "other weights", "the other patch merging"])
def test_an_adapter_is_refused_on_another_backbone(
    what, shelf, workspace, request_for, monkeypatch, tmp_path
):
    import_model("btcv", shelf("btcv"), workspace)
    adapter = adapt(
        request_for("linear-probe", model="btcv", k=1, settings=("epochs=1",)), workspace
    ).adapter
    if what == "another entry":
        shelf("fseft")
        write_document(
            workspace.imported("fseft", "btcv") / "model.json",
            import_model("fseft", tmp_path / "fseft.file", workspace).card,
        )
        (workspace.imported("fseft", "btcv") / "weights.safetensors").write_bytes(
            find_model("fseft", workspace).weights.path.read_bytes()
        )
    elif what == "other weights":
        tensors = checkpoint_files.swin(14)
        torch.save(
            {"state_dict": {n: t + 1 if t.is_floating_point() else t for n, t in tensors.items()}},
            tmp_path / "other.pt",
        )
        import_model("btcv", tmp_path / "other.pt", workspace)
    else:
        card = spec_of("btcv").card
        narrow(monkeypatch, spec_of("btcv"), hparams={**card.hparams, "patch_merging": "fixed"})
    with pytest.raises(FseftError, match="the adapter is for another backbone"):
        load_adapter(adapter, workspace)
    assert read_manifest(adapter).model == "btcv"


# --- the entries ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [s for s in registry().specs("model", FoundationModelSpec) if s.checkpoint],
    ids=lambda s: s.name,
)
def test_an_entry_says_where_it_comes_from_and_under_which_licence(spec):
    card = spec.card
    assert card.licence
    assert card.home.startswith("https://")
    assert card.reference
    assert spec.checkpoint.url.startswith("https://") or not spec.checkpoint.url
    assert spec.checkpoint.marks
    contract = card.contract
    if card.classes:  # others were trained on volumes without a size in mm
        assert contract.spacing_mm or contract.spacing_range_mm


MEASURED = f"""
from fseft.cli.main import main
try:
    main()
finally:
    print({PEAK_BYTES})
"""


@pytest.mark.full
def test_a_full_width_swinunetr_predicts_in_bounded_memory_and_says_how_long(
    tmp_path, monkeypatch, workspace, request_for
):
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "models"))
    file = checkpoint_files.write("btcv", tmp_path / "btcv.pt", spec_of("btcv").card.hparams)
    report = import_model("btcv", file, workspace).report
    assert (report.loaded, report.parameters) == (159, 62_187_296)
    adapter = adapt(
        request_for("zero-shot", model="btcv", k=1, mapping={"tumour": "liver"}), workspace
    ).adapter
    voxels = np.random.default_rng(0).normal(0, 60, (1, 120, 120, 120)).astype(np.int16)
    scan = tmp_path / "scan.nii.gz"
    write_volume(scan, voxels, Geometry((120, 120, 120), np.diag([1.5, 1.5, 1.5, 1])))
    asked = [
        "predict",
        scan,
        "-o",
        tmp_path / "out",
        "--adapter",
        adapter,
        "--workspace",
        workspace.root,
    ]
    command = [sys.executable, "-c", MEASURED, *map(str, asked), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    assert int(done.stdout.splitlines()[-1]) < 6e9
    assert re.search(r"scan: \d+ windows, about [\d.]+ (s|min) left", done.stderr)
    assert (tmp_path / "out" / "scan.nii.gz").is_file()
