"""The kinds of getambassador.io: their types, and what they mean as rules."""
