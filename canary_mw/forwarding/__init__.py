"""What is sent and answered for a decision: a conversation without I/O."""
