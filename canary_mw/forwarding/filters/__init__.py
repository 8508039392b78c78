"""What services are asked before a request is forwarded, and what their answers change."""
