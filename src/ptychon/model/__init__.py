"""Model: the scan on a pixel grid; from unknowns to expected counts and back, part by part; and the
noise.
"""
