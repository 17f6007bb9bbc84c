"""Checks: do the data look as the model says, and do two halves of a scan agree?"""
