"""Estimates of the memory that a model takes, from its graph alone."""
