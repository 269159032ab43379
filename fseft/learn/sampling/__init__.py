"""Patch sampling and augmentation."""
