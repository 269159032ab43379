"""Dataset readers: one file per layout."""
