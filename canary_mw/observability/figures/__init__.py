"""Figures of all workers of a pod: each worker counts in a file of its own, and a reader adds the files up."""
