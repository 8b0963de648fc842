"""Bulk runs: what they cost beside the analysis itself."""
