"""The folder that the workers of one server share: where it lies, what is safe in it, and who does what for all."""
