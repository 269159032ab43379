"""File formats of segmentations."""
