"""Reads a dataset, fingerprints it, plans its preprocessing, and caches the preprocessed arrays."""
