"""Processes that analyse the videos of a run: those of this machine, or of a cluster."""
