"""What a box is made of, for all daemons that run what others wrote: namespaces, a filter of system calls, limits.

Imports the standard library only. Each daemon adds what is visible in its own boxes, and what runs there.
"""
