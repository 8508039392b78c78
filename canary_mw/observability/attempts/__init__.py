"""Evidence of releases: what the drawn requests of each attempt have shown, in the figures of the workers."""
