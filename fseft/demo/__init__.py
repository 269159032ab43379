"""The demonstration on synthetic phantoms."""
