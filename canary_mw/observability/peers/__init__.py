"""Evidence of releases that pods give to each other."""
