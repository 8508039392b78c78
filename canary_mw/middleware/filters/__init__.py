"""How the middlewares ask the services of filters."""
