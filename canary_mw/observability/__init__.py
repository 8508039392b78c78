"""Events, observers, counters, Prometheus metrics and the access log."""
