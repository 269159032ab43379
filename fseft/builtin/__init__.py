"""Built-in components, registered through the same hooks as those of plugins."""
