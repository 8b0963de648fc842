"""Servers and models that the tests start."""
