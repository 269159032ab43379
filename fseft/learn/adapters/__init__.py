"""Adapter layers, and networks that hold them."""
