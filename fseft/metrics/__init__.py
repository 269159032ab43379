"""Segmentation metrics and their statistics."""
