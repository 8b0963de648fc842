"""One module per picture format: its header, what of a file is metadata, and its pixels."""
