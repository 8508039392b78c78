"""TCPMappings as values, and which of them takes a connection."""
