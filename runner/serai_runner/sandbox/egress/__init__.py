"""Networks for boxes that may reach public addresses, and nothing else."""
