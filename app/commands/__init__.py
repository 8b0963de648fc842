"""Commands of `gateway` that are more than a few lines."""
