"""`serai up`: one supervisor for the daemons of this machine."""
