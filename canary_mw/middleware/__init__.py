"""The middlewares: a server's request in, its answer out."""
