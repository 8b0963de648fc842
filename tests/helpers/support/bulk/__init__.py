"""Bulk runs: the command, and workers without models."""
