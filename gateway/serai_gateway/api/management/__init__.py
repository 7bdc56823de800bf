"""The management API, as Algorithmia's clients speak it: paths, shapes and codes are theirs."""
