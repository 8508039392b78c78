"""Descriptions of the attributes, for the reference page and for editors."""
