"""Simulation: scans of known objects and probes, with counting noise."""
