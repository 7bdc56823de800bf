"""What a version's author reads about its replicas and calls."""
