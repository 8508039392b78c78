"""The kinds of getambassador.io: models of their documents, and the rules they give."""
