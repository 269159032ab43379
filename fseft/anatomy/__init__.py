"""The anatomical vocabulary, and the harmonisation of label names across datasets."""
