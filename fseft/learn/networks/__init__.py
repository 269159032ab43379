"""Networks, their layer roles, heads, and state dicts."""
