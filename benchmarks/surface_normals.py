"""Writes `fseft/metrics/surface_normals.npy`, the surface elements of 2 x 2 x 2 voxels.

Run: `python benchmarks/surface_normals.py`. The table is that of surface-distance (DeepMind,
Apache-2.0), as MONAI holds it: for each of the 256 neighbourhoods, up to four vectors (i, j, k)
whose lengths are the areas of planar pieces at unit spacing. They are multiples of 1/8.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.metrics import utils

import fseft.metrics


def main() -> None:
    """Writes the vectors as numbers of eighths, int8 (256, 4, 3)."""
    eighths = 8 * np.asarray(utils._get_neighbour_code_to_normals_table())
    table = np.rint(eighths).astype(np.int8)
    if not np.array_equal(table, eighths):
        raise SystemExit("the table of MONAI has other fractions than eighths")
    np.save(Path(fseft.metrics.__file__).with_name("surface_normals.npy"), table)


if __name__ == "__main__":
    main()
