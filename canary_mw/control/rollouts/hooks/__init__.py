"""Hooks of releases: addresses that are asked before a step, and told what happened."""
