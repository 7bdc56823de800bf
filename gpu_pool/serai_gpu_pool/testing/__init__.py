"""For tests, ours and others': fakes that pass the same suites as the real parts, small models, a pool to talk to."""
