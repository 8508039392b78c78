"""How the endpoints of a service are found: by DNS, or in the EndpointSlices of a cluster."""
