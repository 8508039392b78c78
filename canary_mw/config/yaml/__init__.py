"""YAML as Kubernetes and Emissary read it."""
