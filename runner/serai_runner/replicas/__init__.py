"""Live replicas: where their boxes come from, what they say, how they end."""
