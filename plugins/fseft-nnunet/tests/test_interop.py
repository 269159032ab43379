"""The network's input equals that of nnU-Net's own preprocessing; skipped without nnunetv2."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fseft.model_zoo.import_options import ImportOptions
from fseft.schemas import Preprocessing
from fseft.volume.geometry import Geometry, reorient
from fseft.volume.image import read_volume, write_volume
from fseft.volume.intensity import normalise
from fseft.volume.preprocessing import preprocess_volume
from fseft_nnunet import models, plans

from . import containers

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
for variable in FOLDERS:  # nnU-Net prints a complaint without them
    os.environ.setdefault(variable, os.devnull)
preprocessor = pytest.importorskip("nnunetv2.preprocessing.preprocessors.default_preprocessor")
readers = pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer")
handling = pytest.importorskip("nnunetv2.utilities.plans_handling.plans_handler")

RESAMPLING = {
    **{
        f"resampling_fn_{kind}": "resample_data_or_seg_to_shape"
        for kind in ("data", "seg", "probabilities")
    },
    **{
        f"resampling_fn_{kind}_kwargs": {
            "is_seg": kind == "seg",
            "order": 3 if kind == "data" else 1,
            "order_z": 0,
            "force_separate_z": None,
        }
        for kind in ("data", "seg", "probabilities")
    },
}
ZSCORE = {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False]}
CT = {"normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False]}


def a_scan(path, orientation, spacing_mm, *, minimum=-1000, border=0):
    noise = np.random.default_rng(0).normal(size=(24, 40, 36))
    smooth = gaussian_filter(noise, 1.5)
    array = minimum + 1500 * (smooth - smooth.min()) / np.ptp(smooth)
    if border:
        outside = np.ones(array.shape, bool)
        outside[border:-border, border:-border, border:-border] = False
        array[outside] = 0
    grid = Geometry(array.shape, np.diag([*spacing_mm, 1.0]))
    turned, geometry = reorient(array.astype(np.int16)[None], grid, orientation)
    write_volume(path, turned, geometry)
    return path


def by_nnunet(scan, plans_):
    manager = handling.PlansManager(plans_)
    data, properties = readers.SimpleITKIO().read_images([str(scan)])
    result = preprocessor.DefaultPreprocessor(verbose=False).run_case_npy(
        data, None, properties, manager, manager.get_configuration("3d_fullres"), {}
    )
    return result[0]


def by_fseft(scan, plans_, modality, folder):
    (folder / "model" / "fold_0").mkdir(parents=True)
    (folder / "model" / "plans.json").write_text(json.dumps(plans_))
    (folder / "model" / "dataset.json").write_text(json.dumps(containers.dataset()))
    entry = ImportOptions(like=scan).apply(models.NNUNET.card)
    content = {"init_args": {"configuration": "3d_fullres"}}
    file = folder / "model" / "fold_0" / "checkpoint_final.pth"
    contract = plans.card(entry, file, content).contract
    preprocessing = Preprocessing(
        orientation=contract.orientation,
        spacing_mm=contract.spacing_mm,
        modality=modality,
        intensity=(contract.intensity[modality],),
        patch_size=contract.patch_size,
        **contract.conventions,
    )
    prepared = preprocess_volume(read_volume(scan), None, preprocessing)
    return normalise(prepared.image, preprocessing.intensity, prepared.statistics())


def largest_difference(scan, folder, modality, transpose=(0, 1, 2), **changed):
    plans_ = containers.plans(**RESAMPLING, **changed)
    plans_["transpose_forward"] = list(transpose)
    theirs, ours = by_nnunet(scan, plans_), by_fseft(scan, plans_, modality, folder)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


@pytest.mark.parametrize("orientation", ["SPL", "SAR", "IPL", "LPI"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_ct_in_any_orientation(tmp_path, orientation, transpose):
    scan = a_scan(tmp_path / "scan.nii.gz", orientation, (2.0, 0.9, 0.9))
    assert largest_difference(scan, tmp_path, "ct", transpose, **CT) < 1e-3


def test_thick_slices(tmp_path):
    scan = a_scan(tmp_path / "scan.nii.gz", "SPL", (5.0, 0.9, 0.9))
    assert largest_difference(scan, tmp_path, "ct", spacing=[2.5, 1.0, 1.0], **CT) < 1e-3


def test_mr_with_a_zero_border(tmp_path):
    """Integers are kept in the cache, which rounds by half a unit; the deviation is over 100."""
    scan = a_scan(tmp_path / "scan.nii.gz", "SAR", (2.0, 0.9, 0.9), minimum=1, border=4)
    assert largest_difference(scan, tmp_path, "mr", **ZSCORE) < 1e-2


@pytest.mark.parametrize("name", ["torso_ct", "hippocampus"])
def test_a_real_scan(tmp_path, name):
    root = os.environ.get("FSEFT_REAL_DATA")
    if not root:
        pytest.skip("FSEFT_REAL_DATA names no folder")
    scan = min((Path(root) / name).rglob("*.nii.gz"))
    modality, scheme = ("ct", CT) if name == "torso_ct" else ("mr", ZSCORE)
    # Integers are cached as integers: half a unit is 0.02 of the deviation of these MR scans.
    assert largest_difference(scan, tmp_path, modality, **scheme) < (
        1e-3 if modality == "ct" else 0.03
    )
