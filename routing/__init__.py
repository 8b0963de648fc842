"""Routing of frames to branches, and provenance. Pure, standard library only."""
