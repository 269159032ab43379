"""One module per command: the only code that joins the layers."""
