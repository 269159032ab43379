"""Networks that no library has, written for the architectures of this package."""
