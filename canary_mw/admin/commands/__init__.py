"""Commands of releases over the admin port: who may give them, and what they answer."""
