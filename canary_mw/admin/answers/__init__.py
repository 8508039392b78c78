"""The answers of the admin port, as values of the types in `admin.models`."""
