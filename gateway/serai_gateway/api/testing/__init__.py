"""For tests of calls: a runner host that runs no code and says what a test tells it to."""
