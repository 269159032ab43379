"""Train a foundation model on partially labelled datasets."""
