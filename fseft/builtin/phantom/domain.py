"""Domain randomisation: imaginary scanners, so that networks generalise to real ones.

After SynthSeg (Billot et al., Medical Image Analysis 86, 2023), intensity and texture of each
tissue, noise, blur, bias field, resolution and field of view are drawn for each volume, in
unrealistically wide ranges. This module draws them; `render` applies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fseft.builtin.phantom.anatomy import STRUCTURES, paint_labels
from fseft.builtin.phantom.render import CT, DARK_IN_MR, Appearance, Phantom, make_phantom, render
from fseft.builtin.phantom.scenes import HU, ORGANS, build_scene, random_atlas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fseft.builtin.phantom.render import Modality

    Range = tuple[float, float]

TORSO_HU: Mapping[str, Range] = {
    tissue: (min(means) - 2 * spread, max(means) + 2 * spread)
    for tissue, (means, spread, _) in CT.items()
}
TORSO_MM = ((200.0, 420.0), (160.0, 300.0), (180.0, 440.0))
"""Ranges of width, depth and height of the field of view of a torso."""
MIN_SIDE, MAX_SIDE = 36, 112  # voxels along an axis


@dataclass(frozen=True)
class Frame:
    """A field of view: voxels (i, j, k) and their size."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


def random_frame(rng: np.random.Generator, extent_mm: Sequence[Range], spacing_mm: float) -> Frame:
    """Draws a field of view and voxel size, sometimes with thick slices.

    Args:
        rng: Source of randomness.
        extent_mm: Range of the extent along each axis.
        spacing_mm: Typical voxel size.
    """
    plane = spacing_mm * float(rng.uniform(0.8, 1.3))
    is_thick = rng.uniform() < 0.2
    thickness = plane * float(rng.uniform(1.3, 2.2) if is_thick else 1.0)
    plane, thickness = round(plane, 2), round(thickness, 2)
    spacing = (plane, plane, thickness)
    sides = []
    for extent, mm in zip(extent_mm, spacing, strict=True):
        voxels = rng.uniform(*extent) / mm
        sides.append(int(np.clip(voxels, MIN_SIDE, MAX_SIDE)))
    i, j, k = sides
    return Frame((i, j, k), spacing)


def random_domain(
    rng: np.random.Generator,
    modality: Modality,
    hounsfield: Mapping[str, Range],
    spacing_mm: Sequence[float],
) -> Appearance:
    """Draws the appearance of an imaginary scanner.

    Args:
        rng: Source of randomness.
        modality: "ct" draws each tissue between its bounds, "mr" from dark to bright.
        hounsfield: Bounds of each tissue in HU.
        spacing_mm: Voxel size, to which blur and grain are relative.
    """
    is_ct = modality == "ct"
    voxel = float(np.mean(spacing_mm))
    unit = 1.0 if is_ct else float(rng.uniform(200, 2000))
    bounds = hounsfield if is_ct else {tissue: _mr_bounds(tissue) for tissue in hounsfield}
    intensity = {tissue: unit * float(rng.uniform(*span)) for tissue, span in bounds.items()}
    max_noise = 30.0 if is_ct else 0.08 * unit
    return Appearance(
        modality,
        intensity,
        _random_texture(rng, intensity, is_ct=is_ct),
        noise=float(rng.uniform(0.1, 1.0) * max_noise),
        grain_voxels=float(rng.uniform(0.3, 0.9)),
        blur_mm=_blur(rng, spacing_mm),
        texture_mm=voxel * float(np.exp(rng.uniform(np.log(2), np.log(12)))),
        bias=float(rng.uniform(0, 0.45)),
        bias_mm=voxel * float(rng.uniform(30, 120)),
        hu_offset=float(rng.normal(0, 15)),
        hu_scale=float(rng.normal(1, 0.03)),
        field_of_view=_random_field_of_view(rng),
    )


@dataclass(frozen=True)
class Torsos:
    """Torsos of random persons, imaged by random imaginary scanners."""

    modality: Modality
    spacing_mm: float
    structures: tuple[str, ...] = STRUCTURES

    def make(self, rng: np.random.Generator) -> Phantom:
        """Returns one volume; `rng` is the only source of randomness."""
        frame = random_frame(rng, TORSO_MM, self.spacing_mm)
        appearance = random_domain(rng, self.modality, TORSO_HU, frame.spacing_mm)
        return make_phantom(
            rng,
            shape=frame.shape,
            spacing_mm=frame.spacing_mm,
            modality=self.modality,
            appearance=appearance,
        )


@dataclass(frozen=True)
class Scenes:
    """Individuals of an atlas of abstract organs, imaged by random imaginary scanners.

    Attributes:
        modality: "ct" or "mr".
        spacing_mm: Typical voxel size.
        atlas: Seed of the atlas, and prefix of the structure names.
        reach_mm: Half the size of the atlas.
    """

    modality: Modality
    spacing_mm: float
    atlas: int
    reach_mm: float

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the organs of this atlas."""
        return tuple(f"scene{self.atlas}_{organ}" for organ in ORGANS)

    def make(self, rng: np.random.Generator) -> Phantom:
        """Returns one volume; `rng` decides everything except the atlas."""
        atlas = random_atlas(np.random.default_rng(self.atlas), self.reach_mm)
        frame = random_frame(rng, [(1.5 * self.reach_mm, 2.4 * self.reach_mm)] * 3, self.spacing_mm)
        appearance = random_domain(rng, self.modality, HU, frame.spacing_mm)
        layers = build_scene(rng, atlas, frame.shape, frame.spacing_mm)
        image = render(rng, layers, appearance, frame.shape, frame.spacing_mm)
        labels = paint_labels(layers, frame.shape, self.structures)
        return Phantom(image, labels, frame.spacing_mm, structures=self.structures)


def _random_texture(
    rng: np.random.Generator, intensity: Mapping[str, float], *, is_ct: bool
) -> dict[str, float]:
    """Draws the standard deviation of each tissue, in MR relative to its intensity."""
    texture = {}
    for tissue, level in intensity.items():
        maximum = 25.0 if is_ct else 0.15 * level
        texture[tissue] = float(rng.uniform(0, maximum))
    return texture


def _random_field_of_view(rng: np.random.Generator) -> float:
    """Draws the radius of the reconstructed circle, which rarely crops the image."""
    is_cropped = rng.uniform() < 0.2
    return float(rng.uniform(1.05, 1.3)) if is_cropped else 2.0


def _mr_bounds(tissue: str) -> Range:
    level = DARK_IN_MR.get(tissue)
    if level is None:
        return 0.05, 1.0
    return 0.3 * level, min(1.0, 2.0 * level)


def _blur(rng: np.random.Generator, spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    i, j, k = (
        float(s * b)
        for s, b in zip(spacing_mm, rng.uniform(0.2, 0.5) * rng.uniform(1.0, 2.0, 3), strict=True)
    )
    return i, j, k
