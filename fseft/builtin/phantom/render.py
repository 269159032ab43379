"""Phantoms: a random torso imaged as CT or similarly to MR, with its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fseft.builtin.phantom.anatomy import STRUCTURES, build_anatomy, paint_labels, random_habitus
from fseft.builtin.phantom.shapes import smooth_noise
from fseft.errors import FseftError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fseft.builtin.phantom.anatomy import Habitus, Layer
    from fseft.builtin.phantom.shapes import Float

Modality = Literal["ct", "mr"]
DEFAULT_SHAPE = (88, 64, 88)

# HU without contrast and in the arterial, portal venous and late phase; standard deviation between
# persons; texture
CT: Mapping[str, tuple[tuple[float, float, float, float], float, float]] = {
    "air": ((-990, -990, -990, -990), 5, 2),
    "skin": ((20, 25, 30, 30), 10, 5),
    "fat": ((-102, -102, -100, -100), 6, 9),
    "muscle": ((52, 56, 62, 60), 5, 7),
    "soft": ((38, 48, 60, 52), 6, 5),
    "lung": ((-850, -845, -845, -845), 30, 28),
    "lung_vessel": ((-250, -150, -180, -200), 60, 40),
    "myocardium": ((42, 100, 105, 85), 8, 5),
    "artery": ((40, 290, 150, 105), 12, 4),
    "vein": ((40, 75, 135, 105), 12, 8),
    "portal": ((40, 110, 165, 110), 12, 5),
    "cortical": ((560, 565, 570, 570), 110, 70),
    "spongiosa": ((210, 215, 225, 220), 55, 35),
    "cartilage": ((105, 105, 110, 110), 20, 10),
    "disc": ((85, 85, 90, 90), 12, 8),
    "cord": ((28, 30, 32, 32), 5, 4),
    "liver": ((57, 66, 108, 88), 9, 5),
    "spleen": ((47, 115, 118, 90), 7, 5),
    "kidney_cortex": ((33, 165, 180, 135), 10, 6),
    "kidney_medulla": ((32, 70, 150, 150), 10, 7),
    "urine": ((5, 5, 10, 220), 8, 4),
    "pancreas": ((40, 105, 95, 72), 8, 9),
    "bile": ((10, 10, 11, 12), 7, 3),
    "bowel_wall": ((38, 75, 88, 70), 9, 8),
    "bowel_fluid": ((20, 22, 25, 25), 14, 14),
    "stool": ((-30, -30, -30, -30), 45, 55),
    "stomach_fluid": ((18, 18, 20, 20), 22, 12),
    "cyst": ((6, 6, 7, 8), 6, 2),
    "tumour": ((42, 62, 68, 62), 14, 8),
    "table": ((-120, -120, -120, -120), 80, 5),
}
DARK_IN_MR = {"air": 0.01, "table": 0.01, "lung": 0.12, "cortical": 0.12, "lung_vessel": 0.3}


@dataclass(frozen=True)
class Appearance:
    """The appearance of an anatomy: scanner, settings and contrast medium.

    Attributes:
        modality: "ct" in HU, or "mr" in arbitrary units from 0.
        intensity: Mean of each tissue before noise.
        texture: Standard deviation of each tissue within a person.
        noise: Standard deviation of the noise, in units of the image.
        grain_voxels: Correlation length of the noise.
        blur_mm: Standard deviation of the point spread function, along all axes or each.
        texture_mm: Size of the grains of a tissue's texture.
        bias: Standard deviation of the logarithm of the bias field (MR).
        bias_mm: Wavelength of the bias field.
        hu_offset: Offset of a badly calibrated scanner (CT).
        hu_scale: Scale of a badly calibrated scanner (CT).
        field_of_view: Radius of the reconstructed circle, relative to half the image width.
        table: Whether the image shows the patient table (CT).
    """

    modality: Modality
    intensity: Mapping[str, float]
    texture: Mapping[str, float]
    noise: float
    grain_voxels: float
    blur_mm: float | tuple[float, float, float]
    texture_mm: float = 16.0
    bias: float = 0.0
    bias_mm: float = 190.0
    hu_offset: float = 0.0
    hu_scale: float = 1.0
    field_of_view: float = 2.0
    table: bool = False


@dataclass(frozen=True)
class Phantom:
    """One volume with its labels; the axes (i, j, k) are RAS."""

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    orientation: str = "RAS"
    structures: tuple[str, ...] = STRUCTURES


def random_appearance(
    rng: np.random.Generator, modality: Modality, shift: float = 0.0
) -> Appearance:
    """Draws a scanner and its settings.

    Args:
        rng: Source of randomness.
        modality: "ct" or "mr".
        shift: Domain shift from 0 (none) to 1 (strong).

    Raises:
        FseftError: An argument is out of range.
    """
    if modality not in ("ct", "mr"):
        raise FseftError(f"unknown phantom modality {modality!r}", hint="Known: ct, mr.")
    if shift < 0:
        raise FseftError(
            f"the domain shift is {shift}", hint="Use a number from 0 (none) to 1 (strong)."
        )
    return _random_ct(rng, shift) if modality == "ct" else _random_mr(rng, shift)


def make_phantom(
    rng: np.random.Generator,
    *,
    shape: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    modality: Modality = "ct",
    shift: float = 0.0,
    appearance: Appearance | None = None,
) -> Phantom:
    """Returns one random person and an image of them.

    Args:
        rng: Source of randomness; the anatomy is independent of `modality` and `shift`.
        shape: Voxels (i, j, k); by default about 88 x 64 x 88.
        spacing_mm: Voxel size; by default 3 to 6 mm, so that the person fits.
        modality: "ct" (HU) or "mr" (random contrast, bias field).
        shift: Domain shift from 0 (none) to 1 (strong): noise, kernel, HU calibration, contrast
            phase.
        appearance: The scanner; by default drawn for `modality` and `shift`.

    Returns:
        The phantom, with labels from 1 in the order of `STRUCTURES`.

    Raises:
        FseftError: An argument is out of range.
    """
    _check("the shape of a phantom", shape, 8)
    _check("the spacing of a phantom", spacing_mm, 0.5)
    body, scanner = (np.random.default_rng(int(seed)) for seed in rng.integers(2**63, size=2))
    appearance = appearance or random_appearance(scanner, modality, shift)
    habitus = random_habitus(body)
    grid_shape, grid_spacing = _grid(body, habitus, shape, spacing_mm)
    layers = build_anatomy(body, habitus, grid_shape, grid_spacing)
    image = render(scanner, layers, appearance, grid_shape, grid_spacing)
    return Phantom(image, paint_labels(layers, grid_shape), grid_spacing)


def render(
    rng: np.random.Generator,
    layers: Sequence[Layer],
    appearance: Appearance,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> NDArray[np.int16]:
    """Returns the image of an anatomy.

    Args:
        rng: Source of noise.
        layers: The anatomy in painting order.
        appearance: Scanner and settings.
        shape: Voxels (i, j, k).
        spacing_mm: Voxel size.
    """
    from scipy import ndimage

    image = _paint(rng, layers, appearance, shape, spacing_mm)
    blur_voxels = np.broadcast_to(appearance.blur_mm, 3) / spacing_mm
    image = ndimage.gaussian_filter(image, blur_voxels)
    grains = [_grains(rng, appearance, shape) for _ in range(2)]
    if appearance.modality == "ct":
        return _ct_image(image, grains[0], appearance)
    field = smooth_noise(rng, shape, spacing_mm, appearance.bias_mm)
    image = image * np.exp(appearance.bias * field)
    magnitude = np.hypot(image + grains[0], grains[1])
    return np.asarray(magnitude.clip(0, 32767), np.int16)


def _ct_image(image: Float, grains: Float, appearance: Appearance) -> NDArray[np.int16]:
    """Returns an image with the noise, calibration and field of view of a CT scanner, in HU."""
    is_body = image > -300
    # photons are few where the patient is thick
    load = is_body.mean(axis=(0, 1)) / 0.6
    strength = (0.5 + 0.5 * load).astype(np.float32)
    image = image + grains * strength
    image = (image + 1000.0) * appearance.hu_scale
    image = image - 1000.0 + appearance.hu_offset
    hounsfield = _circle(image, appearance.field_of_view).round()
    return hounsfield.clip(-1024, 3071).astype(np.int16)


def _random_ct(rng: np.random.Generator, shift: float) -> Appearance:
    intensity = _random_ct_intensity(rng, shift)
    sign = rng.choice([-1.0, 1.0])
    texture = {tissue: std * rng.uniform(0.5, 1.5) for tissue, (_, _, std) in CT.items()}
    return Appearance(
        "ct",
        intensity,
        texture,
        noise=float(rng.uniform(5, 18) + 35 * shift),
        grain_voxels=float(rng.uniform(0.35, 0.65) + 0.3 * shift),
        blur_mm=float(rng.uniform(0.5, 2.0) + 2.0 * shift * rng.uniform(0, 1)),
        hu_offset=float(rng.normal(0, 2) + sign * 30 * shift),
        hu_scale=float(1.0 + sign * 0.06 * shift),
        field_of_view=float(rng.uniform(1.05, 1.3) if rng.uniform() < 0.4 + shift else 2.0),
        table=bool(rng.uniform() < 0.8),
    )


def _random_ct_intensity(rng: np.random.Generator, shift: float) -> dict[str, float]:
    """Draws a contrast phase, and the mean of each tissue in that phase, in HU."""
    without_contrast = rng.uniform(0, 0.15)
    portal_venous = rng.uniform(1.6, 2.6)
    arterial = rng.uniform(1.2, 2.0)
    phase = float(rng.choice([without_contrast, portal_venous, arterial]))
    phase += shift * (1.0 - phase)  # towards the arterial phase
    intensity = {}
    for tissue, (means, spread, _) in CT.items():
        mean = np.interp(phase, range(4), means)
        intensity[tissue] = float(mean + rng.normal(0, spread))
    return intensity


def _random_mr(rng: np.random.Generator, shift: float) -> Appearance:
    bright = float(rng.uniform(300, 900))
    fat = float(rng.uniform(0.25, 1.3))
    intensity = {tissue: bright * float(rng.uniform(0.12, 1.0)) for tissue in CT}
    intensity |= {
        tissue: bright * level * float(rng.uniform(0.5, 1.5))
        for tissue, level in DARK_IN_MR.items()
    }
    intensity |= {"fat": bright * fat, "skin": bright * fat * 0.6}
    return Appearance(
        "mr",
        intensity,
        {tissue: level * float(rng.uniform(0.02, 0.1)) for tissue, level in intensity.items()},
        noise=bright * float(rng.uniform(0.01, 0.05) + 0.06 * shift),
        grain_voxels=0.3,
        blur_mm=float(rng.uniform(0.5, 2.0) + 2.0 * shift * rng.uniform(0, 1)),
        bias=float(rng.uniform(0.05, 0.25) + 0.25 * shift),
    )


def _paint(
    rng: np.random.Generator,
    layers: Sequence[Layer],
    appearance: Appearance,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> Float:
    texture = smooth_noise(rng, shape, spacing_mm, appearance.texture_mm)
    texture += np.float32(0.6) * smooth_noise(rng, shape, spacing_mm, 3.75 * appearance.texture_mm)
    image = np.full(tuple(shape), np.float32(appearance.intensity["air"]))
    if appearance.table:
        _paint_table(rng, image, layers[0], appearance.intensity["table"], spacing_mm)
    for layer in layers:
        part = image[layer.box]
        value = texture[layer.box] * np.float32(appearance.texture[layer.tissue])
        value += np.float32(appearance.intensity[layer.tissue])
        part += layer.occupancy * (value - part)
    return image


def _paint_table(
    rng: np.random.Generator, image: Float, body: Layer, value: float, spacing_mm: Sequence[float]
) -> None:
    """Paints a curved table behind the patient, in place."""
    width, depth, _ = image.shape
    width_mm, depth_mm, _ = spacing_mm
    i = (np.arange(width) - width / 2) * width_mm
    j = np.arange(depth) * depth_mm
    back = body.box[1].start * depth_mm - rng.uniform(0, 10)
    curvature = (i / 200.0) ** 2
    surface = back + 60.0 * curvature * rng.uniform(0, 1)
    height = j[None] - surface[:, None]
    slab = 6.0 - np.abs(height + 6.0)
    occupancy = np.clip(slab / depth_mm + 0.5, 0, 1)
    is_table = np.abs(i) < 210
    occupancy *= is_table[:, None]
    fraction = occupancy[..., None].astype(np.float32)
    image += fraction * (np.float32(value) - image)


def _grains(rng: np.random.Generator, appearance: Appearance, shape: Sequence[int]) -> Float:
    from scipy import ndimage

    white = rng.standard_normal(tuple(shape), np.float32)
    soft = ndimage.gaussian_filter(white, appearance.grain_voxels)
    return np.asarray(soft * np.float32(appearance.noise / soft.std()), np.float32)


def _circle(image: Float, field_of_view: float) -> Float:
    """Sets voxels outside the reconstructed circle to -1024 HU."""
    width, depth, _ = image.shape
    i = np.linspace(-1, 1, width)
    j = np.linspace(-1, 1, depth) * depth / width
    radius = np.hypot(i[:, None], j[None])
    outside = radius > field_of_view
    return np.where(outside[..., None], np.float32(-1024), image)


def _grid(
    rng: np.random.Generator,
    habitus: Habitus,
    shape: Sequence[int] | None,
    spacing_mm: Sequence[float] | None,
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Returns shape and spacing for a person; values of the caller are kept."""
    low, high = {"torso": (400, 470), "abdomen": (270, 340), "chest": (270, 330)}[habitus.region]
    width = habitus.width_mm * rng.uniform(1.0, 1.2)
    extent = (
        width,
        width * 0.72 + habitus.belly_mm * 0.5,
        rng.uniform(low, high) * habitus.scale[2],
    )
    if spacing_mm is None:
        i, j, k = shape or DEFAULT_SHAPE
        plane = max(extent[0] / i, extent[1] / j)
        spacing_mm = [float(np.clip(s, 1.0, 12.0).round(2)) for s in (plane, plane, extent[2] / k)]
    if shape is None:
        shape = [round(e / s) for e, s in zip(extent, spacing_mm, strict=True)]
    return (shape[0], shape[1], shape[2]), (spacing_mm[0], spacing_mm[1], spacing_mm[2])


def _check(name: str, values: Sequence[float] | None, minimum: float) -> None:
    if values is None:
        return
    if len(values) != 3 or min(values) < minimum:
        hint = f"Use three numbers of at least {minimum:g}."
        raise FseftError(f"{name} is {tuple(values)}", hint=hint)
