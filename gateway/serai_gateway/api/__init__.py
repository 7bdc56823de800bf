"""The REST interface. `calls.py` is the call path, in raw ASGI; the rest is Starlette."""
