"""Servers that the tests start, and clients that talk to them."""
