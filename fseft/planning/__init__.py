"""Read a dataset, fingerprint it, plan its preprocessing, and cache the preprocessed arrays."""
