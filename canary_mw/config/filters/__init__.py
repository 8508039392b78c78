"""Documents that name services which are asked about every request."""
