"""Every entry takes all tensors of its public file as it is, in full width; the numbers are those of the public layouts.

Shapes alone are compared where nothing else is said: networks of that size on the device `meta` hold no numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from fseft.api import import_model, verify_model
from fseft.errors import FseftError
from fseft.learn.networks import backbone
from fseft.learn.networks.state_dict_mapping import match_state_dict, matching_checkpoints, unwrap
from fseft.model_zoo.loading import output_channels
from fseft.plugin import FoundationModelSpec
from fseft.registry import import_object, registry
from fseft.workspace import Workspace
from tests import checkpoint_files

pytestmark = pytest.mark.full


@dataclass(frozen=True)
class Layout:
    """Tensors of the public file, those of them that the network takes, and the parameters among
    these.
    """

    file: int
    loaded: int
    parameters: int


LAYOUTS = {
    "anatomix": Layout(115, 115, 5_899_344),
    "anatomix-dev": Layout(48, 48, 94_369_568),
    "btcv": Layout(159, 159, 62_187_296),
    "clipdriven": Layout(170, 170, 62_595_315),
    "ctfm": Layout(221, 215, 87_167_126),
    "dae": Layout(131, 126, 8_062_002),
    "fseft": Layout(159, 159, 62_188_031),
    "monai_wholebody": Layout(83, 83, 18_799_401),
    "selfsup": Layout(131, 126, 8_062_002),
    "suprem_segresnet": Layout(83, 81, 4_700_880),
    "suprem_swinunetr": Layout(170, 170, 62_595_315),
    "suprem_unet": Layout(117, 117, 19_416_417),
    "vista3d": Layout(259, 119, 196_361_980),
    "voco_b": Layout(167, 167, 72_762_999),
    "voco_h": Layout(167, 167, 1_160_845_431),
    "voco_l": Layout(167, 167, 290_392_695),
}
NAMES = sorted(LAYOUTS)
TOO_LARGE = {"voco_h", "voco_l"}
RANDOM = {
    "network": set(),
    "body": {"out", "head", "conv_final"},
    "encoder": {
        "out",
        *(f"encoder{n}" for n in (1, 2, 3, 4, 10)),
        *(f"decoder{n}" for n in (1, 2, 3, 4, 5)),
    },
}
"""What public files may leave to chance, by the scope of their entry."""


@pytest.fixture
def on_paper(monkeypatch):
    """Tensors have shapes, and no numbers."""
    real = torch.linspace
    monkeypatch.setattr(
        torch, "linspace", lambda *args, **more: real(*args, **{**more, "device": "cpu"})
    )  # for MONAI
    with torch.device("meta"):
        yield


def spec_of(name):
    return registry().resolve("model", name).spec


def public(name, **more):
    """The tensors of a public file."""
    return unwrap(checkpoint_files.PUBLIC[name][0](spec_of(name).card.hparams, **more))


def network_of(card):
    return backbone.build_network(
        backbone.get_architecture(card.architecture),
        in_channels=1,
        out_channels=output_channels(card),
        hparams=card.hparams,
        seed=0,
    )


def test_every_entry_of_a_public_file_has_its_layout_here():
    assert {
        spec.name for spec in registry().specs("model", FoundationModelSpec) if spec.checkpoint
    } == set(LAYOUTS)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_public_file_is_taken(name, on_paper):
    spec, tensors = spec_of(name), public(name)
    network = network_of(spec.card)
    chosen, report = match_state_dict(tensors, spec.checkpoint, network.state_dict(keep_vars=True))
    assert Layout(len(tensors), report.loaded, report.parameters) == LAYOUTS[name]
    assert report.loaded == len(chosen)
    assert report.unused == {}
    assert set(report.missing) <= RANDOM[spec.card.scope]
    assert backbone.count_parameters(network) == spec.card.parameters


@pytest.mark.parametrize("name", NAMES)
def test_a_public_file_is_taken_for_no_other_model_s(name, on_paper):
    checkpoints = {
        spec.name: spec.checkpoint for spec in registry().specs("model", FoundationModelSpec)
    }
    alike = matching_checkpoints(
        public(name), {n: checkpoint for n, checkpoint in checkpoints.items() if checkpoint}
    )
    same_but_for_the_width = (
        {"voco_b", "voco_h", "voco_l"},
        {"monai_wholebody", "suprem_segresnet"},
    )
    assert set(alike) == next((names for names in same_but_for_the_width if name in names), {name})


@pytest.mark.parametrize("name", ["suprem_swinunetr", "suprem_unet"])
def test_the_number_of_texts_says_which_classes_they_are(name, on_paper):
    spec = spec_of(name)
    card_of = import_object(spec.checkpoint.card)
    for classes, first in ((32, "Spleen"), (25, "aorta")):
        tensors = public(name, classes=classes)
        card = card_of(spec.card, None, {"net": tensors})
        assert (len(card.classes), card.classes[0]) == (classes, first)
        report = match_state_dict(
            tensors, spec.checkpoint, network_of(card).state_dict(keep_vars=True)
        )[1]
        assert report.parameters == LAYOUTS[name].parameters
    with pytest.raises(
        FseftError,
        match=r"has text embeddings for 7 classes\. Files with 9, 25, 32 classes are supported",
    ):
        card_of(spec.card, None, {"net": public(name, classes=7)})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TOO_LARGE])
def test_a_public_file_in_full_width_is_imported(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FSEFT_MODELS", str(tmp_path / "models"))
    store = Workspace(tmp_path)
    file = checkpoint_files.write(name, tmp_path / "file", spec_of(name).card.hparams)
    report = import_model(name, file, store).report
    assert (report.loaded, report.parameters) == (LAYOUTS[name].loaded, LAYOUTS[name].parameters)
    assert verify_model(name, store).card.parameters == spec_of(name).card.parameters
