"""Tracking sessions, and the order of their frames."""
