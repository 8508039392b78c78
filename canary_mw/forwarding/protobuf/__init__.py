"""Messages of the protocol buffers format, by tables of their fields."""
