"""How far a release is, as its page shows it."""
