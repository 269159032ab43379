"""Networks: one file each, with its role map."""
