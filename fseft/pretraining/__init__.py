"""Trains a foundation model on partially labelled datasets."""
