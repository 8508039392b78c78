"""What happened, for whoever watches: events, counters, metrics, the access log."""
