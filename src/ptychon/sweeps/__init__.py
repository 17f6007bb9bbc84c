"""Sweeps: whole passes compiled for an engine and a backend, and the memory they need."""
