"""`canary-mw top`: the releases of a server, in a terminal."""
