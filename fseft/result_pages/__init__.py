"""Pages of results: of an adaptation, of predictions, and of a benchmark."""
