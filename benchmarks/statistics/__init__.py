"""The statistics of releases on simulated streams with fixed seeds, beside the rules of other tools."""
