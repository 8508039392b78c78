"""A rule as values: what a Mapping matches, where it sends requests, and what it changes in them."""
