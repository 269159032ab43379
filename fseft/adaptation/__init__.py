"""Adapts a foundation model to a dataset with k labelled cases."""
