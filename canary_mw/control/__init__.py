"""Which rules are in force: sources, and the store that follows them."""
