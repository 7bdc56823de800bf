"""Bytes to arrays and back. Runs in the device's worker only: the owner never looks into a payload."""
