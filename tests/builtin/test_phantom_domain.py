"""Domain randomisation: the same seed gives the same volume, looks vary widely, and no structure
is lost by it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fseft.builtin.phantom.anatomy import STRUCTURES
from fseft.builtin.phantom.domain import (
    MAX_SIDE,
    MIN_SIDE,
    TORSO_HU,
    TORSO_MM,
    Scenes,
    Torsos,
    random_domain,
    random_frame,
)
from fseft.builtin.phantom.scenes import HU, ORGANS, build_scene, random_atlas
from fseft.demo.results import KNOWN
from fseft.phantom import EMBEDDED, LEFT_OUT, write_varied
from fseft.volume.geometry import geometry_mismatch
from fseft.volume.image import read_labels, read_volume

pytestmark = pytest.mark.full

if TYPE_CHECKING:
    from fseft.builtin.phantom.render import Phantom

SEEDS = st.integers(0, 2**32)


def torso(seed: int, modality="ct", spacing_mm=8.0) -> Phantom:
    return Torsos(modality, spacing_mm).make(np.random.default_rng(seed))


def scene(seed: int, modality="mr", atlas=1, reach_mm=20.0) -> Phantom:
    return Scenes(modality, 1.0, atlas, reach_mm).make(np.random.default_rng(seed))


def mask(phantom: Phantom, structure: str) -> np.ndarray:
    return phantom.labels == phantom.structures.index(structure) + 1


@pytest.fixture(scope="module")
def scenes() -> list[Phantom]:
    return [scene(seed) for seed in range(10)]


@pytest.mark.parametrize("make", [torso, scene])
def test_the_same_seed_gives_the_same_volume_and_another_seed_another(make):
    one, same, other = make(7), make(7), make(8)
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.labels, same.labels)
    assert one.spacing_mm == same.spacing_mm != other.spacing_mm


@settings(max_examples=50)
@given(seed=SEEDS, spacing_mm=st.floats(0.5, 8.0))
def test_a_field_of_view_has_as_many_voxels_as_a_volume_may_have(seed, spacing_mm):
    frame = random_frame(np.random.default_rng(seed), TORSO_MM, spacing_mm)
    assert all(MIN_SIDE <= side <= MAX_SIDE for side in frame.shape)
    assert all(0.7 * spacing_mm < size < 3 * spacing_mm for size in frame.spacing_mm)


@settings(max_examples=50)
@given(seed=SEEDS, hounsfield=st.sampled_from([HU, TORSO_HU]))
def test_every_tissue_of_a_ct_is_between_its_bounds_and_of_an_mr_between_dark_and_bright(
    seed, hounsfield
):
    ct, mr = (
        random_domain(np.random.default_rng(seed), kind, hounsfield, (1.0, 1.0, 1.0))  # type: ignore[arg-type]
        for kind in ("ct", "mr")
    )
    assert all(low <= ct.intensity[tissue] <= high for tissue, (low, high) in hounsfield.items())
    assert min(mr.intensity.values()) >= 0
    assert mr.intensity.keys() == mr.texture.keys() == hounsfield.keys()


def test_what_is_bright_in_one_mr_is_dark_in_another():
    drawn = [
        random_domain(np.random.default_rng(s), "mr", HU, (1.0, 1.0, 1.0)).intensity
        for s in range(20)
    ]
    for one, other in combinations(("solid", "pair", "halves", "ground-0"), 2):
        brighter = sum(each[one] > each[other] for each in drawn)
        assert 3 <= brighter <= 17


def test_an_appearance_changes_the_image_and_not_the_labels_of_a_torso():
    ct, mr = torso(3), torso(3, modality="mr")
    assert ct.image.shape == mr.image.shape
    assert ct.image.min() < -500 <= 0 <= mr.image.min()


def test_torsos_are_seen_whole_and_in_part():
    frames = [random_frame(np.random.default_rng(seed), TORSO_MM, 4.0) for seed in range(20)]
    widths = [frame.shape[0] * frame.spacing_mm[0] for frame in frames]
    assert min(widths) < 250
    assert max(widths) > 350


def test_every_structure_is_seen_in_most_volumes(scenes):
    for organ in scenes[0].structures:
        assert sum(mask(each, organ).any() for each in scenes) >= 8, organ
    torsos = [torso(seed) for seed in range(8)]
    for structure in STRUCTURES:
        assert sum(mask(each, structure).any() for each in torsos) >= 5, structure


def test_individuals_of_an_atlas_have_their_organs_where_the_atlas_says(scenes):
    """Left and right of the pair, the core in its solid, and two halves that touch."""
    for each in scenes:
        at = {
            name: np.argwhere(mask(each, name))
            for name in each.structures
            if mask(each, name).sum() > 8
        }
        right, left = at.get("scene1_pair_right"), at.get("scene1_pair_left")
        if right is not None and left is not None:
            assert right.mean(0)[0] > left.mean(0)[0]
        solid, core = at.get("scene1_solid"), at.get("scene1_core")
        if solid is not None and core is not None:
            assert np.all(core.mean(0) > solid.min(0) - 1)
            assert np.all(core.mean(0) < solid.max(0) + 1)


def test_another_atlas_has_its_organs_elsewhere():
    one, other = (random_atlas(np.random.default_rng(number), 20.0) for number in (1, 2))
    assert np.abs(one.solid.centre - other.solid.centre).max() > 0.1


def test_layers_of_a_scene_need_only_tissues_that_every_scanner_defines():
    rng = np.random.default_rng(0)
    layers = build_scene(rng, random_atlas(rng, 20.0), (40, 40, 40), (1.0, 1.0, 1.0))
    assert {layer.tissue for layer in layers} | {"air"} == HU.keys()
    assert {layer.label for layer in layers} == {-1, 0, *range(1, len(ORGANS) + 1)}


def test_the_embedded_datasets_annotate_in_part_and_leave_out_what_the_demo_calls_new():
    torsos = [set(one.structures) for one in EMBEDDED if not one.atlas]
    assert all(each and each < set(STRUCTURES) - set(LEFT_OUT) for each in torsos)
    assert set(KNOWN) <= set.union(*torsos)
    assert len({one.name for one in EMBEDDED}) == len(EMBEDDED)
    for kind in (bool, lambda atlas: not atlas):
        assert {one.modality for one in EMBEDDED if kind(one.atlas)} == {"ct", "mr"}


@pytest.mark.parametrize("varied", [EMBEDDED[0], EMBEDDED[-1]], ids=lambda one: one.name)
def test_an_embedded_dataset_is_written_as_others_read_it(tmp_path, varied):
    write_varied(tmp_path, replace(varied, cases=1, spacing_mm=2 * varied.spacing_mm))
    described = json.loads((tmp_path / "dataset.json").read_text())
    expected = varied.structures or Scenes("ct", 1.0, varied.atlas, 1.0).structures
    assert list(described["labels"]) == ["background", *expected]
    image = read_volume(tmp_path / "imagesTr" / "case_000_0000.nii.gz")
    labels = read_labels(tmp_path / "labelsTr" / "case_000.nii.gz")
    assert geometry_mismatch(image.geometry, labels.geometry) is None
    assert 0 < labels.array.max() <= len(expected)
