"""`canary-mw release`: how far a release is, and commands for it."""
