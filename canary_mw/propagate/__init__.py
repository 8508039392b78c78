"""What app and outgoing requests know of the decision of the present request."""
