"""The method `arena` for fseft."""
