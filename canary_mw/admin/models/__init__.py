"""The answers of the admin port as types: the JSON API sends them, and the pages show them."""
