"""The middlewares inside a framework, where the signed-in user is known: Flask and Django."""
