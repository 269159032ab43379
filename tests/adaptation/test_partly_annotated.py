"""Adaptations to cases that are annotated in part: what is not annotated has no effect."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from fseft.adaptation.configure import configure
from fseft.errors import FseftError
from fseft.learn.adapters.adapted_network import AdaptedNetwork
from fseft.learn.training.running_dice import RunningDice
from fseft.planning.dataset_reading import read_dataset
from fseft.volume.image import read_labels, write_labels
from tests.sample_data import adapt, adapt_request, equal_tensors, write_dataset

SETTINGS = ("epochs=2", "learning_rate=0.01", "augment=false")
ON_FEATURES = (*SETTINGS, "feature_passes=1", "crops_per_step=1")
IGNORE = 9


def relabel(folder, change, **labels):
    """Changes the label files, and declares more labels."""
    for path in (folder / "labelsTr").iterdir():
        volume = read_labels(path)
        write_labels(path, change(volume.array[0].copy()), volume.geometry)
    declared = json.loads((folder / "dataset.json").read_text())
    declared["labels"] |= labels
    (folder / "dataset.json").write_text(json.dumps(declared))
    return folder


def every_fifth(label):
    label[np.arange(len(label)) % 3 != 1] = 0
    return label


def ignoring_the_rest(label):
    """The same slices, with the ignore label in all slices without a structure."""
    label = every_fifth(label)
    label[~label.any((1, 2))] = IGNORE
    return label


def tensors(folder, method, workspace, output, settings, **options):
    dataset = read_dataset(folder, **options)
    request = adapt_request(
        folder, "tiny", method, workspace, k=2, settings=settings, output=output, dataset=dataset
    )
    config = configure(request, workspace)
    return config, load_file(adapt(request, workspace).adapter)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("lora", SETTINGS), ("linear-probe", ON_FEATURES), ("spatial-adapter", ON_FEATURES)],
)
def test_single_slices_are_trained_on_as_if_the_others_had_the_ignore_label(
    tmp_path, workspace, method, settings
):
    sparse = relabel(write_dataset(tmp_path / "sparse"), every_fifth)
    ignoring = relabel(write_dataset(tmp_path / "ignoring"), ignoring_the_rest, ignore=IGNORE)
    first, found = tensors(
        sparse, method, workspace, tmp_path / "1", settings, annotated_slices="auto"
    )
    second, marked = tensors(ignoring, method, workspace, tmp_path / "2", settings)
    _, background = tensors(sparse, method, workspace, tmp_path / "3", settings)
    assert all(part.endswith("of 32 slices annotated") for part in first.partly_annotated.values())
    assert len(first.partly_annotated) == len(second.partly_annotated) == 2
    assert equal_tensors(found, marked)
    assert not equal_tensors(found, background)


def test_the_solver_of_a_probe_leaves_out_what_is_not_annotated(tmp_path, workspace):
    scribbled = relabel(write_dataset(tmp_path / "scribbled"), ignoring_the_rest, ignore=IGNORE)
    request = adapt_request(
        scribbled, "tiny", "linear-probe", workspace, k=2, settings=("solver=lbfgs", *ON_FEATURES)
    )
    run = adapt(request, workspace).run
    assert run.final_loss < 0.5
    assert set(run.training_dice) == {"Left kidney", "tumour"}


def test_a_case_without_any_annotated_voxel_is_left_out_with_a_line(tmp_path, workspace, caplog):
    folder = write_dataset(tmp_path / "partly")
    path = folder / "labelsTr" / "a.nii.gz"
    volume = read_labels(path)
    write_labels(path, np.full_like(volume.array[0], IGNORE), volume.geometry)
    request = adapt_request(
        folder,
        "tiny",
        "lora",
        workspace,
        k=3,
        dataset=read_dataset(folder, ignore_label=IGNORE),
    )
    assert "a" not in configure(request, workspace).support.cases
    assert "1 case without any annotated voxel (a): left out" in caplog.text


def test_single_slices_are_named_where_the_others_count_as_background(tmp_path, workspace, caplog):
    sparse = relabel(write_dataset(tmp_path / "sparse"), every_fifth)
    configure(adapt_request(sparse, "tiny", "lora", workspace, k=2), workspace)
    assert "4 of 4 labelled cases have labels in single slices only" in caplog.text


@pytest.mark.parametrize(
    ("label", "cause"),
    [(7, "the ignore label 7 is the value of 'tumour'"), (0, "is the value of the background")],
)
def test_an_ignore_label_that_is_something_else_is_refused(blobs, label, cause):
    with pytest.raises(FseftError, match=cause):
        read_dataset(blobs, ignore_label=label)


def test_an_ignore_label_below_the_highest_is_accepted(tmp_path, workspace):
    folder = relabel(
        write_dataset(tmp_path / "low"), lambda label: np.where(label == 0, 0, label), ignore=3
    )
    assert read_dataset(folder).labels == {"Left kidney": 1, "tumour": 7}
    assert configure(adapt_request(folder, "tiny", "lora", workspace, k=2), workspace)


# --- structures that some cases do not annotate ----------------------------------------------------


def without_tumour_in(folder, *cases):
    for case in cases:
        path = folder / "labelsTr" / f"{case}.nii.gz"
        volume = read_labels(path)
        label = volume.array[0]
        write_labels(path, label * (label != 7), volume.geometry)
    return folder


@pytest.mark.parametrize(
    ("method", "settings"), [("lora", SETTINGS), ("linear-probe", ON_FEATURES)]
)
def test_a_structure_that_a_case_does_not_annotate_has_no_background_there(
    tmp_path, workspace, method, settings
):
    folder = without_tumour_in(write_dataset(tmp_path / "partial"), "a", "b", "c")
    masked, tensors_masked = tensors(
        folder, method, workspace, tmp_path / "1", settings, missing_label="unannotated"
    )
    complete, tensors_complete = tensors(folder, method, workspace, tmp_path / "2", settings)
    assert complete.annotated == {}
    assert {"Left kidney"} in masked.annotated.values()
    assert not equal_tensors(tensors_masked, tensors_complete)


def test_scores_during_the_training_leave_out_what_a_case_does_not_annotate(
    tmp_path, workspace, monkeypatch
):
    folder = without_tumour_in(write_dataset(tmp_path / "partial"), "a", "b")
    seen, counted = {}, []

    def validation(self, epoch, cases, crops_of):
        seen.update({case: set(crops_of(case, 1)[1].unique().tolist()) for case in range(cases)})

    def update(self, logits, labels, annotated=None):
        counted.append(annotated)

    monkeypatch.setattr(AdaptedNetwork, "on_epoch_validation", validation)
    monkeypatch.setattr(RunningDice, "update", update)
    dataset = read_dataset(folder, missing_label="unannotated")
    request = adapt_request(
        folder, "tiny", "lora", workspace, k=4, settings=SETTINGS, dataset=dataset
    )
    cases = configure(request, workspace).support.cases
    adapt(request, workspace)
    for number, case in enumerate(cases):
        assert (0 in seen[number], -1 in seen[number]) == (case in "cd", case in "ab")
    assert all(annotated is not None and annotated.shape[1] == 2 for annotated in counted)
    assert counted


@pytest.mark.parametrize("place", ["annotated.json", "dataset.json", "annotations.csv"])
def test_a_list_of_annotated_structures_decides(tmp_path, workspace, place):
    folder = without_tumour_in(write_dataset(tmp_path / "partial"), "a", "b")
    lists = {"a": ["Left kidney"]}
    if place == "annotations.csv":
        (folder / place).write_text("case,Left kidney,tumour\na,yes,no\n")
    elif place == "annotated.json":
        (folder / place).write_text(json.dumps(lists))
    else:
        declared = json.loads((folder / place).read_text())
        (folder / place).write_text(json.dumps({**declared, "annotated": lists}))
    config = configure(adapt_request(folder, "tiny", "lora", workspace, k=4), workspace)
    both = {"Left kidney", "tumour"}
    assert config.annotated == {"a": {"Left kidney"}, "b": both, "c": both, "d": both}
    assert config.plan.annotated["a"] == ("Left kidney",)


@pytest.mark.parametrize(
    ("table", "cause"),
    [
        ("case,spleen\na,yes\n", "annotations.csv: unknown structure 'spleen'"),
        ("case,tumour\nz,yes\n", "annotations.csv: unknown case 'z'"),
        ("case,tumour\na,maybe\n", "the row of 'a' is not yes or no"),
        ("case,tumour\na\n", "the row of 'a' is not yes or no"),
        ("tumour,case\nyes,a\n", "has no column 'case' at first"),
        ("case,tumour\na,yes\na,no\n", "has two rows of 'a'"),
        ("case,age\na,61\n", "unknown structure 'age'.*Write the header case,Left kidney,tumour"),
    ],
)
def test_a_wrong_table_of_annotations_is_refused(tmp_path, workspace, table, cause):
    folder = write_dataset(tmp_path / "partial")
    (folder / "annotations.csv").write_text(table)
    with pytest.raises(FseftError, match=cause):
        configure(adapt_request(folder, "tiny", "lora", workspace, k=2), workspace)


@pytest.mark.parametrize(
    "table", [b"", b"image_id;reader;note\n1;x;2\n", "größe,b\n1,2\n".encode("latin-1"), b"\0"]
)
def test_some_other_table_of_that_name_is_ignored_with_the_columns_that_are_expected(
    tmp_path, workspace, table, caplog
):
    folder = write_dataset(tmp_path / "foreign")
    (folder / "annotations.csv").write_bytes(table)
    config = configure(adapt_request(folder, "tiny", "lora", workspace, k=2), workspace)
    assert config.annotated == {}
    assert "annotations.csv: ignored" in caplog.text
    assert "has the columns case, Left kidney, tumour" in caplog.text


@pytest.mark.parametrize(
    ("rules", "warned"),
    [({}, True), ({"missing_label": "unannotated"}, False), ({"lists": "a,yes,no"}, False)],
)
def test_a_structure_counts_as_background_only_where_nothing_else_is_stated(
    tmp_path, workspace, caplog, rules, warned
):
    folder = without_tumour_in(write_dataset(tmp_path / "partial"), "a")
    if "lists" in rules:
        (folder / "annotations.csv").write_text(f"case,Left kidney,tumour\n{rules['lists']}\n")
    dataset = read_dataset(folder, missing_label=rules.get("missing_label"))
    request = adapt_request(folder, "tiny", "lora", workspace, k=4, dataset=dataset)
    configure(request, workspace)
    assert ("(tumour in 3 of 4) count as background in the others" in caplog.text) == warned


def test_two_lists_of_annotations_are_refused(tmp_path, workspace):
    folder = write_dataset(tmp_path / "partial")
    (folder / "annotations.csv").write_text("case,tumour\na,yes\n")
    (folder / "annotated.json").write_text('{"a": ["tumour"]}')
    with pytest.raises(FseftError, match="both list annotated structures"):
        configure(adapt_request(folder, "tiny", "lora", workspace, k=2), workspace)


def test_a_grid_on_which_no_annotated_voxel_of_a_structure_is_left_is_refused(tmp_path, workspace):
    def with_a_dot(label):
        label = ignoring_the_rest(label)
        label[label == 7] = 0
        label[tuple(np.argwhere(label == 1)[0])] = 7
        return label

    folder = relabel(write_dataset(tmp_path / "dots"), with_a_dot, ignore=IGNORE)
    request = adapt_request(folder, "tiny", "lora", workspace, k=2, spacing_mm=(6, 6, 6))
    with pytest.raises(FseftError, match="no annotated voxel of 'tumour' is left"):
        adapt(request, workspace)
