"""The admin app: health, rules, metrics."""
