"""Segments scans with one or several adapters."""
