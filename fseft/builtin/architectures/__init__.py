"""Architectures, one file each: hyper-parameters, network, and roles of the layers."""
