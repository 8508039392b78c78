"""The kinds of canary-mw's own API group: GrayRelease."""
