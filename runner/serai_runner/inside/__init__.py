"""What runs in the author's interpreter. Standard library only, and imported before any of the author's code."""
