"""Built-in metrics, one file each with a `SPEC`."""
