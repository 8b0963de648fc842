"""Videos: the decoder runs in a process of its own; this package starts it and reads its frames."""
