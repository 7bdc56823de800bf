"""Which call goes where, and which replicas there are. Pure: events and `now` in, effects out."""
