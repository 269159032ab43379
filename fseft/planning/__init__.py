"""Reads a dataset, fingerprints it, plans its preprocessing, and cache the preprocessed arrays."""
