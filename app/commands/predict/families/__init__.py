"""One module per command that answers files: its options, its request, and what it saves and prints."""
