"""Templates for new plugins."""
