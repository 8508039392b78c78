"""The lines of `canary-mw evidence --batch`: questions about evidence and releases, and their answers."""
