"""Match predictions with reference labels, and score them."""
