"""Devices: `base.py` says what one can do, `process.py` runs one in a process of its own, the worker is `worker.py`."""
