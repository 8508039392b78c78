"""Documents of rules read: text -> resources -> rules, each finding with its line."""
