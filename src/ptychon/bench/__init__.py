"""Named problems, timed and compared."""
