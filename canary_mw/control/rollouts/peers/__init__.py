"""The other pods of a release: who they are, what they have seen, and what they are told."""
