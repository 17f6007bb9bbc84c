"""Metrics: misfit, errors modulo the ambiguities, resolution by Fourier ring correlation."""
