"""HTTP without I/O: heads, targets, framing, and their bytes (RFC 9110, RFC 9112)."""
