"""Lines of the access log, and how they are written."""
