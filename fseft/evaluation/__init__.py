"""Matches predictions with reference labels, and scores them."""
