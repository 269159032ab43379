"""Compares methods and models on the same held-out cases."""
