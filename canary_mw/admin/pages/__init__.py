"""The pages of the admin port: what people look at."""
