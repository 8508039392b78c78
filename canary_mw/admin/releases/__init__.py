"""The answers about releases: what figures and evidence say of them, and who gets gray."""
