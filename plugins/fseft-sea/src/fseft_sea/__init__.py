"""The method `sea` for fseft."""
