"""Model: the scan on a pixel grid, the propagators, and the noise."""
