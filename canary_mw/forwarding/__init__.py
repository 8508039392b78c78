"""The exchange with an upstream that a decision leads to: requests, retries and replies, without I/O."""
