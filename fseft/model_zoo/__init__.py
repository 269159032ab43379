"""Foundation models: the catalogue, their weights, and the adapters that are made from them."""
