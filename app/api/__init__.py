"""Thin HTTP: read the request, call one pipeline, write the answer."""
