"""The pool: the daemon that owns device memory on one machine and runs models in batches. Start at `pool.py`."""
