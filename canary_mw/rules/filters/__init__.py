"""Services that are asked about every request, as values."""
