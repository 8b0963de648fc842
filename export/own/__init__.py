"""Models of one's own: from a file of weights to a repository entry and a catalogue entry."""
