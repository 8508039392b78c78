"""Where a release goes next, what holds it back, and what it is then."""
