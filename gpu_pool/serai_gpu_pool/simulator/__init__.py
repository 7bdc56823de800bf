"""The pool's own decisions driven by a trace and a clock of its own: hours of thousands of models in seconds."""
