"""Runs over thousands of videos: the list, the processes that analyse it, and the rows that say how each one went."""
