"""Data: what was measured, its frames on disk until they are needed, a look at them, and what came
out.
"""
