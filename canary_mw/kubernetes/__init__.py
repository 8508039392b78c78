"""The Kubernetes API: credentials, addresses, and objects that are listed and watched."""
