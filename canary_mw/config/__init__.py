"""Documents -> rules: text, resources, Mappings, and every finding with its line."""
