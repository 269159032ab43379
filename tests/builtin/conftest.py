"""What the tests of architectures share."""

from __future__ import annotations

import pytest


@pytest.fixture
def places():
    """Of an architecture and a network: name -> part, stage, role, and whether a norm follows."""

    def of(architecture, network):
        return {
            t.name: (t.part, t.stage, t.role, t.followed_by_norm)
            for t in architecture.targets(network)
        }

    return of
