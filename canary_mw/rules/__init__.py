"""A rule as values: what a Mapping matches, where it leads, what it changes."""
