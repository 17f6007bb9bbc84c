"""Run: first object and probe, the loop over passes, when to stop, and how to go on."""
