"""The ports of TCPMappings: opened by the standalone proxy beside its own."""
