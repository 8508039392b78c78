"""HTTP messages without I/O: heads, targets, framing, and their encoding as bytes (RFC 9110, RFC 9112)."""
