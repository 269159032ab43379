"""Images without learning: files, geometry, resampling, intensities, fingerprints, cached arrays."""
