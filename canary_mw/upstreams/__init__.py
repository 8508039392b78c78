"""Services: their endpoints, health, load balancing, limits, attempts, shadows."""
