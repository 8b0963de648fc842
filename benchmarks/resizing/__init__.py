"""Resizers and scaled JPEG decoding, compared."""
