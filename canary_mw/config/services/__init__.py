"""Documents of kinds beside Mapping: where endpoints are asked for, and where records go."""
