"""A dataset folder is read by the reader that detects it; what has no partner is reported once, or
refused.
"""

from __future__ import annotations

import json
import re
import unicodedata
from types import ModuleType

import pytest

from fseft.builtin import plugin as builtin
from fseft.errors import FseftError
from fseft.planning.dataset_reading import read_dataset
from fseft.plugin import ReaderSpec, hookimpl
from fseft.registration import Plugin
from fseft.registry import Registry
from fseft.schemas import Case, Dataset
from tests.sample_data import write_dataset


def bare(folder, images, labels=()):
    for kind, names in (("imagesTr", images), ("labelsTr", labels)):
        (folder / kind).mkdir(parents=True)
        for name in names:
            (folder / kind / f"{name}.nii.gz").touch()
    return folder


def declare(folder, **content):
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_bare_folders_are_read(tmp_path):
    dataset = read_dataset(bare(tmp_path / "livers", ["a", "b"], ["a", "b"]))
    assert (dataset.name, dataset.reader, len(dataset.cases)) == ("livers", "folders", 2)
    assert dataset.warnings == ()


def test_the_declaration_goes_before_bare_folders(tmp_path):
    folder = bare(tmp_path / "d", ["a_0000"], ["a"])
    declare(folder, channel_names={"0": "CT"}, labels={"liver": 1}, file_ending=".nii.gz")
    assert read_dataset(folder).reader == "nnunet"
    training = [{"image": "imagesTr/a_0000.nii.gz", "label": "labelsTr/a.nii.gz"}]
    declare(folder, modality={"0": "CT"}, labels={"1": "liver"}, training=training)
    assert read_dataset(folder).reader == "decathlon"


def test_labels_without_image_are_skipped_with_one_warning(tmp_path):
    folder = bare(tmp_path / "d", ["a"], ["a", "p", "q", "r", "s"])
    dataset = read_dataset(folder)
    assert [case.name for case in dataset.cases] == ["a"]
    assert dataset.warnings == ("4 labels without an image (p, q, r, ...): skipped",)
    with pytest.raises(FseftError, match="4 labels without an image"):
        read_dataset(folder, strict=True)


def test_images_without_label_are_kept_with_one_warning(tmp_path):
    folder = bare(tmp_path / "d", ["a", "b"], ["a"])
    dataset = read_dataset(folder)
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [case.name for case in dataset.labelled] == ["a"]
    assert dataset.warnings == ("1 image without a label (b): not used for training",)
    with pytest.raises(FseftError, match="1 image without a label"):
        read_dataset(folder, strict=True)


def test_images_that_are_in_no_case_are_named_in_one_warning(tmp_path):
    folder = bare(tmp_path / "d", ["a"], ["a"])
    (folder / "imagesTr" / "series").mkdir()
    names = ("b.mhd", "b.raw", "c.hdr", "d.png", "notes.txt", "series/notes.txt")
    for name in names:
        (folder / "imagesTr" / name).touch()
    warning = (
        "4 files with another name or format (imagesTr/b.mhd, imagesTr/c.hdr, imagesTr/d.png, ...): "
        "not used"
    )
    assert read_dataset(folder).warnings == (warning,)
    with pytest.raises(FseftError, match="4 files with another name or format"):
        read_dataset(folder, strict=True)


def test_images_with_another_ending_than_declared_are_named(tmp_path):
    folder = bare(tmp_path / "d", ["a_0000"], ["a"])
    (folder / "imagesTr" / "b_0000.nrrd").touch()
    declare(folder, channel_names={"0": "CT"}, labels={"liver": 1}, file_ending=".nii.gz")
    (warning,) = read_dataset(folder).warnings
    assert "imagesTr/b_0000.nrrd" in warning


@pytest.mark.parametrize("suffix", [".mhd", ".png", ".tif", ".hdr"])
def test_images_that_are_not_read_are_not_called_absent(tmp_path, suffix):
    folder = bare(tmp_path / "d", [])
    (folder / "imagesTr" / f"a{suffix}").touch()
    cause = rf"has 1 image, none of which is used \(imagesTr/a\{suffix}\).*Supported are"
    with pytest.raises(FseftError, match=cause):
        read_dataset(folder)


def test_a_wrong_file_ending_is_not_called_an_absent_image(tmp_path):
    folder = bare(tmp_path / "d", ["a_0000", "b_0000"], ["a"])
    declare(folder, channel_names={"0": "CT"}, labels={"liver": 1}, file_ending=".nrrd")
    with pytest.raises(FseftError, match=r"declares the file_ending.*contains a_0000"):
        read_dataset(folder)


def test_a_dataset_without_any_label_is_fine(tmp_path):
    assert read_dataset(bare(tmp_path / "d", ["a", "b"]), strict=True).warnings == ()


@pytest.mark.parametrize("name", ["my data (1)", "Größe", "-x", "Dataset003_Liver", "..."])
def test_the_name_is_that_of_the_folder_made_safe(tmp_path, name):
    found = read_dataset(bare(tmp_path / name, ["a"])).name
    assert found
    assert re.fullmatch(r"[\w.-]+", found)
    assert not found.startswith(("-", "."))


@pytest.mark.parametrize("names", [("肝臓", "腎臓"), ("🫀", "🫁"), ("Лёгкие", "лёгкие")])
def test_names_of_any_script_stay_distinct(tmp_path, names):
    assert len({read_dataset(bare(tmp_path / name, ["a"])).name for name in names}) == 2


def test_a_name_does_not_depend_on_the_form_of_its_accents(tmp_path):
    names = [unicodedata.normalize(form, "Léber") for form in ("NFC", "NFD")]
    assert {read_dataset(bare(tmp_path / name, ["a"])).name for name in names} == {"Léber"}


def test_the_name_does_not_depend_on_the_way_to_the_folder(tmp_path, monkeypatch):
    folder = bare(tmp_path / "livers", ["a"])
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    assert {read_dataset(path).name for path in (folder, tmp_path / "link", folder / ".")} == {
        "livers"
    }
    assert read_dataset(type(folder)()).name == "livers"


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda folder: folder.parent, "does not exist"),
        (lambda folder: folder.touch(), "is not a folder"),
        (lambda folder: folder.mkdir(), "is empty.*nnU-Net.*Decathlon.*bare folders"),
        (lambda folder: bare(folder, []), "has no image"),
        (lambda folder: (folder / "scans").mkdir(parents=True), "unknown dataset layout.*nnU-Net"),
    ],
)
def test_a_folder_without_a_dataset_is_refused(tmp_path, make, cause):
    make(tmp_path / "d")
    with pytest.raises(FseftError, match=cause):
        read_dataset(tmp_path / "d")


@pytest.mark.real
def test_incomplete_cases_of_a_public_dataset_are_reported(real_data):
    dataset = read_dataset(real_data / "hippocampus")
    assert (len(dataset.cases), len(dataset.labelled)) == (261, 260)
    assert dataset.warnings == (
        "2 labels without an image (hippocampus_010, hippocampus_281): skipped",
        "1 image without a label (hippocampus_118): not used for training",
    )
    with pytest.raises(FseftError, match="2 labels without an image"):
        read_dataset(real_data / "hippocampus", strict=True)


class Fails:
    """A reader that another package might have."""

    def detects(self, _folder):
        return True

    def read(self, _folder):
        raise ValueError("no such key")


class FailsToDetect(Fails):
    def detects(self, _folder):
        raise KeyError("dataset.json")


class TakesNoFolder(Fails):
    def detects(self):
        return True


class NamesAllCasesAlike(Fails):
    def read(self, folder):
        images = ((folder / "imagesTr" / f"{name}.nii.gz",) for name in "ab")
        cases = tuple(Case(name="same", images=image) for image in images)
        return Dataset(name="d", reader="foreign", channels=("CT",), labels={}, cases=cases)


class GivesNothing(Fails):
    def read(self, _folder):
        return None


@pytest.fixture
def reader(monkeypatch):
    """Put a reader of another package before all others."""

    def put(reader):
        module = ModuleType("foreign")
        spec = ReaderSpec(name="a-foreign-one", factory=f"{__name__}:{reader}")
        module.fseft_dataset_readers = hookimpl(lambda: [spec], specname="fseft_dataset_readers")
        plugins = [
            Plugin("builtin", "fseft", "1.0", builtin),
            Plugin("foreign", "fseft-foreign", "1.0", module),
        ]
        installed = Registry(plugins)
        monkeypatch.setattr("fseft.planning.dataset_reading.registry", lambda: installed)

    return put


def test_a_broken_reader_names_its_package_and_shows_its_traceback(tmp_path, reader, caplog):
    reader("FailsToDetect")
    read_dataset(bare(tmp_path / "d", ["a"]))
    (record,) = caplog.records
    assert "the reader 'a-foreign-one' of fseft-foreign 1.0 failed" in record.getMessage()
    assert record.exc_info[2].tb_next is not None


def test_a_reader_of_a_plugin_and_a_built_in_one_never_compete_silently(tmp_path, reader):
    reader("Fails")
    folder = write_dataset(tmp_path / "nnunet")
    with pytest.raises(FseftError) as caught:
        read_dataset(folder)
    assert "a-foreign-one (fseft-foreign 1.0), nnunet (fseft 1.0)" in caught.value.cause
    assert caught.value.hint == "Choose one by `reader`, such as a-foreign-one."
    assert read_dataset(folder, reader="nnunet").reader == "nnunet"


def test_a_reader_can_be_chosen(tmp_path):
    folder = write_dataset(tmp_path / "nnunet")
    assert read_dataset(folder).reader == "nnunet"
    assert read_dataset(folder, reader="folders").reader == "folders"
    with pytest.raises(FseftError, match=r"unknown reader 'nnunets'\. Did you mean nnunet"):
        read_dataset(folder, reader="nnunets")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("Missing", "'a-foreign-one' cannot be imported .AttributeError"),
        ("FailsToDetect", "failed .KeyError: 'dataset"),
        ("TakesNoFolder", "failed .TypeError: .* takes 1 positional argument"),
    ],
)
def test_a_broken_reader_does_not_hide_the_others(tmp_path, reader, caplog, broken, message):
    reader(broken)
    assert read_dataset(bare(tmp_path / "d", ["a"])).reader == "folders"
    assert re.search(message, caplog.text)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("NamesAllCasesAlike", "case same, .*'a-foreign-one' returned 2 cases with the same name"),
        ("GivesNothing", "'a-foreign-one' returned a NoneType, not a Dataset"),
    ],
)
def test_a_reader_that_fails_is_reported_in_one_line(tmp_path, reader, broken, message):
    reader(broken)
    with pytest.raises(FseftError, match=message):
        read_dataset(bare(tmp_path / "d", ["a"]))


def test_labels_that_are_not_an_object_are_refused(tmp_path):
    folder = declare(
        bare(tmp_path / "d", ["a_0000"], ["a"]), channel_names={"0": "CT"}, labels=["liver"]
    )
    with pytest.raises(FseftError, match="labels: must be an object"):
        read_dataset(folder)


def test_a_declaration_names_the_structures_of_bare_folders(tmp_path):
    folder = declare(
        bare(tmp_path / "d", ["a", "b"], ["a"]), channel_names={"0": "CT"}, labels={"liver": 1}
    )
    found = read_dataset(folder)
    assert [case.name for case in found.cases] == ["a", "b"]
    assert found.labels == {"liver": 1}


def test_images_without_a_channel_number_are_named_in_the_error(tmp_path):
    channels = {"0": "T1", "1": "T2"}
    folder = declare(
        bare(tmp_path / "d", ["a", "b"], ["a"]), channel_names=channels, labels={"liver": 1}
    )
    with pytest.raises(
        FseftError, match="imagesTr: contains 2 images, none of them named CASE_0000"
    ):
        read_dataset(folder)
