"""Inspect: what a file holds, what it does not say, and how the detector was mounted."""
