"""The middlewares: they take a request from an ASGI or WSGI server and give the server its response."""
