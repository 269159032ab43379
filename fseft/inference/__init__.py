"""Segment scans with one or several adapters."""
