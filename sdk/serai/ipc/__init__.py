"""How our own processes talk: frames over Unix sockets, matched by id. Used by gateway, runner host and pool."""
