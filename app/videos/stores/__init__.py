"""Stores of artefacts: a folder, or a bucket."""
