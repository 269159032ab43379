"""What authors of plugins get: fixtures and contract checks."""
