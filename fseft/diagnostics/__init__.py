"""Checks of an installation: packages, devices, plugins, models, disk, and a dataset."""
