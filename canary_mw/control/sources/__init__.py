"""Where rules come from."""
