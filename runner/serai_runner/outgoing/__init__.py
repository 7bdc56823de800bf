"""What a running call asks of the gateway, carried out of its box."""
