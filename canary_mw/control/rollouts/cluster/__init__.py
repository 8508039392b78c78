"""States in a cluster: a ConfigMap for each release, and a Lease for the one that raises."""
