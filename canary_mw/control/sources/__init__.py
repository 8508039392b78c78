"""Sources of rules."""
