"""Releases that raise their own weight: where their state is kept, who drives them, and what is in force of it."""
