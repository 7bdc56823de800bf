"""The gateway's HTTP server: gunicorn's processes, uvicorn's life cycle, our own protocol with limits on everything."""
