"""Fixtures for the tests of architectures."""

from __future__ import annotations

import pytest


@pytest.fixture
def places():
    """Return a function from architecture and network to the roles of the layers by name."""

    def layer_roles(architecture, network):
        return {
            t.name: (t.part, t.stage, t.role, t.followed_by_norm)
            for t in architecture.targets(network)
        }

    return layer_roles
