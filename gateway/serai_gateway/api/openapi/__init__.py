"""GET /openapi.json: what this gateway answers, exactly as it answers it. Tests hold the two against each other."""
