"""The route table, its index, and the decision which Mapping takes a request."""
