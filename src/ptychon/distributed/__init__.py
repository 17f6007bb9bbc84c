"""Sums over processes, and nothing else."""
