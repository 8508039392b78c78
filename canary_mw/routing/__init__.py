"""Which Mapping takes a request: the table, its index, the decision."""
