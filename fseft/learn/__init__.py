"""Torch without files: networks, roles, patches, losses, the training loop, inference."""
