"""The runner host: owns the replicas of one machine, the sandboxed processes that run authors' code."""
