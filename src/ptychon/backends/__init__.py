"""Backends: where arrays live and what computes on them."""
