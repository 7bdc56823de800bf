"""For tests of the inference protocol: a pool that gives back what it gets, and a gateway with models before it."""
