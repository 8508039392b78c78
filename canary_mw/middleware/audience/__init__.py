"""Who sends a request, as the app knows it: its user, and the answers of its predicates."""
