"""Gray releases by Ambassador Mapping rules, inside a Python app or standalone."""

__version__ = "0.1.0"
