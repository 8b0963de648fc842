"""Whole videos through a profile: analysis, artefacts, checkpoints and jobs."""
