"""Bad input ends in one line that names the case, the file, the cause and the remedy, with exit
status 2.
"""

from __future__ import annotations

import gzip
import json
import shlex
import shutil

import numpy as np
import pytest

from fseft.cli.parsing import case_names
from fseft.volume.geometry import Geometry
from fseft.volume.image import write_labels, write_volume

from .conftest import refused

SHAPE = (16, 18, 20)
GRID = np.diag([2.0, 1.0, 1.0, 1.0])
NAMES = ("a", "b", "c")


def image(seed=0):
    voxels = np.full((1, *SHAPE), -1000, np.int16)
    voxels[0, 2:-2, 2:-2, 2:-2] = np.random.default_rng(seed).normal(60, 30, [n - 4 for n in SHAPE])
    return voxels


def label():
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[4:10, 4:12, 4:12], voxels[11:13, 4:8, 4:8] = 1, 2
    return voxels


def declare(folder, channels=("CT",), **labels):
    content = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **(labels or {"liver": 1, "tumour": 2})},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def livers(tmp_path):
    """A good dataset of three labelled cases."""
    folder = tmp_path / "livers"
    for seed, name in enumerate(NAMES):
        put_image(folder, image(seed), name=name)
        put_label(folder, label(), name=name)
    declare(folder)
    return folder


def put_image(folder, voxels, affine=GRID, name="b"):
    write_volume(
        folder / "imagesTr" / f"{name}_0000.nii.gz", voxels, Geometry(voxels.shape[1:], affine)
    )


def put_label(folder, voxels, affine=GRID, name="b"):
    path = folder / "labelsTr" / f"{name}.nii.gz"
    if voxels.dtype.kind == "u":
        write_labels(path, voxels, Geometry(voxels.shape, affine))
    else:
        write_volume(path, voxels[np.newaxis], Geometry(voxels.shape, affine))


# --- what can be wrong with a dataset; each takes the good one, and case b suffers ----------------


def missing(folder):
    shutil.rmtree(folder)


def a_file_instead(folder):
    shutil.rmtree(folder)
    folder.write_text("")


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def unknown_layout(folder):
    shutil.rmtree(folder)
    (folder / "scans").mkdir(parents=True)
    (folder / "scans" / "b.nii.gz").write_bytes(b"")


def no_image_at_all(folder):
    shutil.rmtree(folder / "imagesTr")


def broken_json(folder):
    (folder / "dataset.json").write_text('{"channel_names": ')


def a_region(folder):
    declare(folder, liver=[1, 2])


def a_channel_too_few(folder):
    declare(folder, channels=("T1", "T2"))


def another_shape(folder):
    put_label(folder, label()[:-1])


def another_spacing(folder):
    put_label(folder, label(), np.diag([2.5, 1.0, 1.0, 1.0]))


def another_origin(folder):
    moved = GRID.copy()
    moved[0, 3] = 7.5
    put_label(folder, label(), moved)


def another_direction(folder):
    turned = GRID.copy()
    turned[1:3, 1:3] = [[0.8, -0.6], [0.6, 0.8]]
    put_label(folder, label(), turned)


def cut_image(folder):
    path = folder / "imagesTr" / "b_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])


def cut_inside(folder):
    path = folder / "imagesTr" / "b_0000.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-500]))


def cut_label(folder):
    path = folder / "labelsTr" / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])


def no_bytes(folder):
    (folder / "imagesTr" / "b_0000.nii.gz").write_bytes(b"")


def text_as_image(folder):
    (folder / "imagesTr" / "b_0000.nii.gz").write_text("no image at all\n" * 50)


def text_as_label(folder):
    (folder / "labelsTr" / "b.nii.gz").write_text("no label at all\n" * 50)


def broken_link(folder):
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "labelsTr" / "b.nii.gz").symlink_to("nowhere.nii.gz")


def a_lone_header(folder):
    shutil.rmtree(folder)
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    (folder / "imagesTr" / "b.hdr").write_bytes(bytes(348))
    pair = {"image": "./imagesTr/b.hdr", "label": "./labelsTr/b.nii.gz"}
    content = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver"},
        "training": [pair],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    put_label(folder, label())


def colours(folder):
    path = folder / "imagesTr" / "b_0000.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[70:74] = np.array([128, 24], "<i2").tobytes()  # RGB24
    path.write_bytes(gzip.compress(bytes(content) * 2))


def four_dimensions(folder):
    put_image(folder, np.concatenate([image(0), image(1), image(2)]))


def five_dimensions(folder):
    path = folder / "imagesTr" / "b_0000.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[40:56] = np.array([5, *SHAPE[::-1], 2, 3, 1, 1], "<i2")[:8].tobytes()
    path.write_bytes(gzip.compress(bytes(content) * 7))


def two_dimensions(folder):
    put_image(folder, image()[:, :1])


def nan_voxels(folder):
    voxels = image().astype(np.float32)
    voxels[0, 3, 3, 3:5] = np.nan
    put_image(folder, voxels)


def infinite_voxel(folder):
    voxels = image().astype(np.float32)
    voxels[0, 3, 3, 3] = np.inf
    put_image(folder, voxels)


def constant(folder):
    put_image(folder, np.full((1, *SHAPE), -1000, np.int16))


def negative_label(folder):
    put_label(folder, label().astype(np.int16) - 1)


def fractional_label(folder):
    put_label(folder, label() * np.float32(0.5))


def nan_label(folder):
    voxels = label().astype(np.float32)
    voxels[0, 0, 0] = np.nan
    put_label(folder, voxels)


def unnamed_label(folder):
    put_label(folder, label() * np.uint8(3))


def empty_labels(folder):
    for name in NAMES:
        put_label(folder, np.zeros(SHAPE, np.uint8), name=name)


def one_case_in_two_files(folder):
    declare(folder)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "file_ending": ""}))
    write_volume(folder / "imagesTr" / "b_0000.nrrd", image(), Geometry(SHAPE, GRID))


def a_label_alone(folder):
    (folder / "imagesTr" / "b_0000.nii.gz").unlink()


def an_image_alone(folder):
    (folder / "labelsTr" / "b.nii.gz").unlink()


def an_absent_class(folder):
    declare(folder, liver=1, tumour=2, spleen=3)


def two_channels(folder):
    for name in NAMES:
        shutil.copy(
            folder / "imagesTr" / f"{name}_0000.nii.gz", folder / "imagesTr" / f"{name}_0001.nii.gz"
        )
    declare(folder, channels=("T1", "T2"))


IMAGE, LABEL = "imagesTr/b_0000.nii.gz: ", "labelsTr/b.nii.gz: "
GRIDS = "the image b_0000.nii.gz and its label are not on the same grid"
DATASETS = [
    (missing, ["livers: does not exist", "Give the folder of a dataset."]),
    (a_file_instead, ["livers: is not a folder", "Give the folder of a dataset."]),
    (empty, ["livers: is empty", "nnU-Net", "Decathlon", "imagesTr and labelsTr"]),
    (unknown_layout, ["livers: has an unknown dataset layout", "nnU-Net", "Decathlon"]),
    (no_image_at_all, ["livers: has no image", "Put images into imagesTr."]),
    (broken_json, ["livers/dataset.json: is not valid JSON", "Repair or remove it."]),
    (
        a_region,
        [
            "livers/dataset.json: has regions (liver), but no regions_class_order",
            '"regions_class_order": [1, 2]',
        ],
    ),
    (
        a_channel_too_few,
        ["case a, ", "imagesTr: has 1 image files, expected 2", "Add or remove channels."],
    ),
    (
        one_case_in_two_files,
        ["case b_0000, ", "b_0000.nrrd: b_0000.nii.gz is another image of this case", "Remove one"],
    ),
    (another_shape, ["case b, ", LABEL, GRIDS, "20×18×16", "20×18×15", "resample the label"]),
    (another_spacing, ["case b, ", LABEL, GRIDS, "spacing", "2.5", "resample the label"]),
    (another_origin, ["case b, ", LABEL, GRIDS, "origin", "7.5", "resample the label"]),
    (
        another_direction,
        ["case b, ", LABEL, GRIDS, "axes that differ by 36.9 degrees", "resample the label"],
    ),
    (cut_image, ["case b, ", IMAGE, "is truncated or damaged", "Copy or export it again."]),
    (
        cut_inside,
        ["case b, ", IMAGE, "it contains 11020 of 11520 bytes", "Copy or export it again."],
    ),
    (cut_label, ["case b, ", LABEL, "is truncated or damaged", "Copy or export it again."]),
    (no_bytes, ["case b, ", IMAGE, "is empty (0 bytes)", "Copy or export it again."]),
    (text_as_image, ["case b, ", IMAGE, "is not a NIfTI file", "Check its content"]),
    (text_as_label, ["case b, ", LABEL, "is not a NIfTI file", "Check its content"]),
    (broken_link, ["case b, ", LABEL, "does not exist", "Check the path."]),
    (a_lone_header, ["b.hdr: is a header without its image b.img", "Convert the pair"]),
    (colours, ["case b, ", IMAGE, "is a colour (RGB) image", "Save one intensity per voxel."]),
    (four_dimensions, ["case b, ", IMAGE, "has 3 frames (4D), expected 1 channel", "split it"]),
    (five_dimensions, ["case b, ", IMAGE, "has 5 dimensions (20×18×16×2×3)", "Save a 3D image"]),
    (nan_voxels, ["case b, ", IMAGE, "contains 2 voxels of NaN or infinity", "Replace them"]),
    (infinite_voxel, ["case b, ", IMAGE, "contains 1 voxel of NaN or infinity", "Replace them"]),
    (
        constant,
        ["case b, ", IMAGE, "is constant (all voxels are -1000)", "Check how it was exported."],
    ),
    (
        negative_label,
        ["case b, ", LABEL, "contains negative labels (lowest -1)", "Number labels from 0 on."],
    ),
    (
        fractional_label,
        ["case b, ", LABEL, "(e.g. 0.5)", "nearest neighbour"],
    ),
    (nan_label, ["case b, ", LABEL, "(e.g. nan)", "nearest neighbour"]),
    (
        unnamed_label,
        ["case b, ", LABEL, "contains label values 3, 6 without a name", "Name it in dataset.json"],
    ),
    (empty_labels, ["no case of livers has a labelled voxel", "Check the label files"]),
]


@pytest.mark.parametrize(("damage", "words"), DATASETS, ids=[row[0].__name__ for row in DATASETS])
def test_a_bad_dataset_is_refused_by_plan(fseft, livers, damage, words):
    damage(livers)
    refused(fseft("plan", "livers", "--model", "none", "--device", "cpu"), words)


PLAN = "plan livers --model none"
SCRATCH = "adapt livers --model none --method scratch -k 1"
LORA = "adapt livers --model phantom-tiny --method lora -k 1"
EVALUATE = "evaluate predictions livers/labelsTr"
BENCHMARK = "benchmark livers --model none --method scratch -o out"
OPTIONS = [
    (
        "plan livers --model phantom-tny",
        ["unknown model 'phantom-tny'", "Did you mean phantom-tiny?"],
    ),
    ("plan livers --model ''", ["the value of --model is empty"]),
    ("plan livers", ["Missing option '--model'", "See fseft plan --help."]),
    ("plan", ["Missing argument", "See fseft plan --help."]),
    ("plann livers", ["No such command 'plann'", "plan", "See fseft --help."]),
    (f"{PLAN} --devise cpu", ["No such option: --devise", "--device", "See fseft plan --help."]),
    (f"{PLAN} --workers many", ["--workers", "must be a whole number", "See fseft plan --help."]),
    (f"{PLAN} --workers 0", ["--workers", "must be at least 1", "See fseft plan --help."]),
    (f"{PLAN} --device gpu", ["--device", "'gpu' is not one of 'auto', 'cpu', 'cuda'"]),
    (f"{PLAN} --spacing 0,1,1", ["--spacing '0,1,1': must be positive along every axis"]),
    (f"{SCRATCH} --cases a b", ["Separate values by commas: --cases a,b."]),
    (
        f"{PLAN} --memory plenty",
        ["--memory 'plenty' is not an amount of memory", "for example 12GB"],
    ),
    (
        f"{PLAN} --memory 1MB",
        ["the smallest training step of resunet needs", "limit is 1 MB", "Raise `--memory`"],
    ),
    ("preprocess livers --model nothing", ["unknown model 'nothing'", "Did you mean none?"]),
    ("show method lorra", ["unknown method 'lorra'", "Did you mean lora"]),
    ("show methd lora", ["'methd' is not one of 'method', 'model'", "See fseft show --help."]),
    (
        "adapt livers --model phantom-tny --method lora -k 1",
        ["unknown model 'phantom-tny'", "Did you mean phantom-tiny?"],
    ),
    (
        "adapt livers --model none --method lorra -k 1",
        ["unknown method 'lorra'", "Did you mean lora"],
    ),
    (
        "adapt livers --model none --method lora -k 1",
        ["'lora' starts from a pre-trained model", "scratch"],
    ),
    ("adapt", ["Missing argument", "See fseft adapt --help."]),
    (
        "adapt livers --set rank=4",
        ["the training has no setting 'rank'"],
    ),
    (
        "adapt livers --model none --method scratch -k 4",
        ["k is 4, but there are 3", "between 1 and 3"],
    ),
    ("adapt livers --model none --method scratch -k 0", ["k is 0", "between 1 and 3"]),
    ("adapt livers --model none --method scratch -k -1", ["k is -1", "between 1 and 3"]),
    (
        "adapt livers --model none --method scratch -k few",
        ["'--k'", "must be a whole number", "See fseft adapt --help."],
    ),
    (f"{SCRATCH} --labels livr", ["the dataset has no structure 'livr'", "Did you mean liver?"]),
    (
        f"{SCRATCH} --cases a,d",
        ["case d: is not a labelled case of the dataset", "Known: a, b, c."],
    ),
    (f"{SCRATCH} --reporter json", ["unknown reporter 'json'", "Did you mean jsonl?"]),
    (f"{SCRATCH} --decoder frosen", ["--decoder", "'frosen' is not one of", "'frozen'"]),
    (
        f"{SCRATCH} --memory plenty",
        ["--memory 'plenty' is not an amount of memory", "for example 12GB"],
    ),
    (f"{SCRATCH} --seed -1", ["--seed", "must be at least 0", "See fseft adapt --help."]),
    (
        f"{SCRATCH} --cases {','.join(['case_of_the_hospital'] * 20)}",
        ["case_of_the_hospital: is not a labelled"],
    ),
    (f"{SCRATCH} --minutes -1", ["--minutes", "-1", "must be a positive number"]),
    (f"{SCRATCH} --set epochs", ["--set 'epochs': expected key=value", "for example --set rank=4"]),
    (f"{SCRATCH} --set epoch=3", ["has no setting 'epoch'", "Did you mean epochs"]),
    (
        f"{SCRATCH} --set epochs=many",
        ["setting epochs=many", "must be a whole number", "fseft show method scratch"],
    ),
    (
        f"{SCRATCH} --set epochs=0",
        ["setting epochs=0", "must be at least 1", "fseft show method"],
    ),
    (
        f"{SCRATCH} --set loss=dise",
        ["unknown loss 'dise'", "Did you mean dice or dice_ce or dice_wce?"],
    ),
    (f"{LORA} --set rnk=4", ["'lora' has no setting 'rnk'", "Did you mean rank"]),
    (f"{LORA} --set rank=4.5", ["setting rank=4.5", "whole number", "fseft show method lora"]),
    (f"{LORA} --set parts=encodr", ["setting parts=", "'encoder'", "fseft show method lora"]),
    (
        f"{EVALUATE} --tolerance wide",
        ["the tolerance 'wide' is not a length in mm", "Write it as 2mm."],
    ),
    (
        f"{EVALUATE} --tolerance -1mm",
        ["the tolerance '-1mm' is not a length in mm", "Write it as 2mm."],
    ),
    (
        f"{EVALUATE} --tolerance nan",
        ["the tolerance 'nan' is not a length in mm", "Write it as 2mm."],
    ),
    (f"{EVALUATE} --labels livr", ["unknown structure 'livr'", "Did you mean liver?"]),
    (
        "evaluate nowhere livers/labelsTr",
        ["nowhere: does not exist", "Give a label file or a folder"],
    ),
    ("evaluate livers livers/labelsTr", ["livers: holds no label files", "Give livers/labelsTr."]),
    (
        "evaluate livers/imagesTr livers/labelsTr",
        ["no case in common", "a_0000", "has the file name of its"],
    ),
    (
        f"{BENCHMARK} -k 3",
        [
            "k is 3, but only 2 of 3 labelled cases remain to train on, as 1 are scored",
            "set `--test-images`",
        ],
    ),
    (
        f"{BENCHMARK} -k few",
        ["--k 'few': expected whole numbers of at least 1", "for example --k 1,5"],
    ),
    (f"{BENCHMARK} -k 0,1", ["--k '0,1': expected whole numbers of at least 1"]),
    (f"{BENCHMARK} --seed -1", ["--seed '-1': expected whole numbers of at least 0"]),
    (f"{BENCHMARK} --set lora.rank=4", ["setting lora.rank: the method 'lora' is not compared"]),
    (f"{BENCHMARK} --set rank=4", ["the method 'scratch' has no setting 'rank'"]),
    (f"{BENCHMARK} --method lorra", ["unknown method 'lorra'", "Did you mean lora"]),
    (f"{BENCHMARK} --test d -k 1", ["case d: is not a labelled case of the dataset"]),
    (f"{BENCHMARK} --test none.txt", ["none.txt: the file does not exist"]),
    (f"{BENCHMARK} --test empty.txt", ["empty.txt: contains no case name"]),
    (f"{LORA} --unlabelled nowhere", ["nowhere: the file or folder does not exist"]),
    (
        "adapt livers --model phantom-tiny --method linear-probe -k 1 --unlabelled livers/imagesTr",
        ["'linear-probe' does not train on crops", "or leave out `--unlabelled`."],
    ),
    (f"{LORA} --cases empty.txt", ["empty.txt: contains no case name"]),
    (f"{LORA} --cases ''", ["the value of --cases is empty", "leave the option out"]),
    (f"{LORA} --labels=", ["the value of --labels is empty"]),
    (f"{LORA} --labels ,", ["the selection `--labels` is empty"]),
    (f"{LORA} --cases ' '", ["the selection `--cases` is empty"]),
    (f"{BENCHMARK} --test ,", ["the selection `--test` is empty"]),
    (f"{EVALUATE} --metrics ,", ["the selection `--metrics` is empty"]),
    ("pretrain livers --name m --init ''", ["the value of --init is empty"]),
    ("plan '' --model none", ["an argument is empty"]),
    (f"{BENCHMARK} --test-images livers", ["`--test-images` and `--test-labels` go together"]),
    (f"{BENCHMARK} --tolerance wide", ["the tolerance 'wide' is not a length in mm"]),
    (
        "predict livers/imagesTr -o out --adapter none.st",
        ["none.st: the adapter does not exist", "Pass the adapter"],
    ),
    ("phantom p --modality pet", ["--modality", "'pet' is not one of 'ct', 'mr'"]),
    (
        "phantom p --cases -1",
        ["--cases", "must be at least 0", "See fseft phantom --help."],
    ),
    ("phantom p --structures livr", ["livr", "Did you mean liver?"]),
    ("phantom p --shift 2", ["--shift", "must be at most 1", "See fseft phantom --help."]),
    (
        "pretrain livers --name m --epochs 0",
        ["--epochs", "must be at least 1", "See fseft pretrain --help."],
    ),
    (
        "pretrain livers --name m --patch 64,64",
        ["--patch '64,64' is not 3 whole numbers", "--patch=64,64,64"],
    ),
    ("pretrain livers --name m --learning-rate 0", ["--learning-rate", "0"]),
    (
        "pretrain livers --name m --architecture resunt",
        ["unknown architecture 'resunt'", "Did you mean resunet"],
    ),
    ("pretrain livers --name ../m", ["../m"]),
    (
        "pretrain livers --name m --natural --sampling 2",
        ["--sampling, --balanced and --natural exclude each other"],
    ),
    ("pretrain livers --name m --missing-label gone", ["unknown rule for missing labels 'gone'"]),
    (
        "pretrain livers --name m --sampling often",
        ["--sampling often: must be balanced, natural or a positive number"],
    ),
    (
        "pretrain livers --name m --set learning_rate=0.1",
        ["--set learning_rate: this setting has an option. Use --learning-rate."],
    ),
    (
        "pretrain livers --name m --set max_grad_norm=-1",
        ["setting max_grad_norm=-1: must be greater than 0"],
    ),
    (
        "pretrain livers --name m --labels spleen",
        ["no dataset has the requested structure 'spleen'", "Known: liver, tumour"],
    ),
    ("demo --minutes 0", ["--minutes", "0"]),
]


@pytest.mark.parametrize(("command", "words"), OPTIONS, ids=[row[0] for row in OPTIONS])
def test_a_bad_option_is_refused(fseft, livers, tmp_path, command, words):
    (tmp_path / "empty.txt").write_text("\n \n")
    shutil.copytree(livers / "labelsTr", tmp_path / "predictions")
    refused(fseft(*shlex.split(command)), words)


@pytest.mark.parametrize(
    "command",
    [
        "plan livers --model none",
        "preprocess livers --model none",
        LORA,
        BENCHMARK,
        "pretrain livers --name m",
    ],
)
def test_every_command_that_reads_a_dataset_can_refuse_unused_files(fseft, livers, command):
    (livers / "imagesTr" / "d_0000.mhd").touch()
    words = ["livers: 1 file with another name or format (imagesTr/d_0000.mhd): not used"]
    refused(fseft(*shlex.split(command), "--strict"), words)


def test_a_byte_order_mark_is_not_part_of_a_case_name(livers, tmp_path):
    (tmp_path / "names.txt").write_bytes("\ufeffa\r\nb\r\n".encode())
    assert case_names([str(tmp_path / "names.txt"), "c"]) == ("a", "b", "c")
    assert case_names(None) is None


def test_case_names_are_composed_as_those_of_files():
    assert case_names(["e\u0301tude"]) == ("\u00e9tude",)


def test_a_pretraining_that_has_no_checkpoint_cannot_be_resumed(fseft, livers):
    ended = fseft("pretrain", "livers", "--name", "m", "--resume", "--device", "cpu")
    assert ended.status == 2
    assert ended.lines[-1].startswith("error: models/m: no checkpoint to resume from.")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"gall": 1, "Gall bladder": 2},
            "livers: names gallbladder twice: 'gall' and 'Gall bladder'. Rename one",
        ),
        (
            {"lung": 1, "left lung upper lobe": 2},
            "livers has lung, and livers parts of it (lung_upper_lobe_left). Request",
        ),
    ],
)
def test_names_that_contradict_each_other_are_refused(fseft, livers, names, message):
    declare(livers, **names)
    ended = fseft("pretrain", "livers", "--name", "m", "--device", "cpu")
    assert ended.status == 2
    assert ended.lines[-1].startswith(f"error: {message}")


def test_what_names_were_taken_for_is_shown(fseft, livers):
    declare(livers, lkidney=1, Blob=2)
    shown = fseft("plan", "livers", "--model", "none").out
    assert "lkidney -> kidney_left" in shown
    told = fseft("pretrain", "livers", "--name", "m", "--device", "cpu", "--labels", "livr").lines[
        -1
    ]
    assert told == "error: no dataset has the requested structure 'livr'. Known: blob, kidney_left."
