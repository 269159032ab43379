"""Volumes without learning: image files, grids, resampling, intensities, fingerprint and cache."""
