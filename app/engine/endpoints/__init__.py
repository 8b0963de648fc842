"""One engine over several servers that have the same models."""
