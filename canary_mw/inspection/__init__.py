"""Rules looked at without serving anything: lint, explain."""
