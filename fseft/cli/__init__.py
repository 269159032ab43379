"""The command line: one module per command that parses, calls a step and prints."""
