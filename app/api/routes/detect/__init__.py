"""`POST /v1/detect`."""
