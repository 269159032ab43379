"""The embedded data (phantoms) and the embedded small model."""
