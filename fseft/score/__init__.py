"""Numbers and pictures: metrics with one stated rule for empty masks, and figures."""
