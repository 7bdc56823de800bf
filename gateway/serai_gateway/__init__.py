"""The gateway: what callers, authors and browsers talk to. Stateless: daemons and database hold the state."""
